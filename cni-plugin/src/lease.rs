//! Taking addresses: the allocator's candidates tried on the ledger.

use std::net::IpAddr;

use portolan_abi::{Addr, Owner, PodEntry, PodState};

use crate::{
    attachment,
    clock::{self, SECOND},
    ipam::{Candidates, Census, Pool, is_cool},
    ledger::{Ledger, LedgerError},
    spec::{Code, Failure},
};

/// The entry of an address while its owner is being added.
pub(crate) fn adding(owner: Owner) -> PodEntry {
    PodEntry {
        owner,
        since: clock::now(),
        state: PodState::ADDING,
        ifindex: 0,
        pod_mac: [0; 6],
        host_mac: [0; 6],
        flags: 0,
    }
}

/// Takes an address of `pool`: `wanted`, or the best one that is free.
pub(crate) fn take(
    ledger: &mut Ledger,
    pool: &Pool,
    wanted: Option<IpAddr>,
    owner: Owner,
) -> Result<IpAddr, Failure> {
    match wanted {
        Some(ip) => take_wanted(ledger, ip, owner).map(|()| ip),
        None => take_any(ledger, pool, owner),
    }
}

/// Takes the address that was asked for, even if it was released a moment ago: who asks for it expects just that.
fn take_wanted(ledger: &mut Ledger, ip: IpAddr, owner: Owner) -> Result<(), Failure> {
    let addr = Addr::from(ip);
    if ledger.take(addr, &adding(owner))? {
        return Ok(());
    }
    let holder = match ledger.pod(addr)? {
        Some(entry) => ledger.attachment(entry.owner)?,
        None => None,
    };
    let holder = holder.as_ref().map_or_else(|| "an unknown owner".to_owned(), attachment::describe);
    Err(Failure::new(Code::TryAgain, format!("the requested address {ip} is in use by {holder}")))
}

fn take_any(ledger: &mut Ledger, pool: &Pool, owner: Owner) -> Result<IpAddr, Failure> {
    let entry = adding(owner);
    let [.., a, b, c, d] = owner.0;
    let mut candidates = Candidates::new(pool, u32::from_be_bytes([a, b, c, d]).into(), entry.since);
    while let Some(ip) = candidates.next(ledger)? {
        let addr = Addr::from(ip);
        if !ledger.take(addr, &entry)? {
            candidates.note_taken();
            continue;
        }
        // It may have been taken and given back between the look and the insert.
        match ledger.release(addr)? {
            Some(release) if !is_cool(release.0, clock::now()) => {
                ledger.free(addr, owner)?;
                candidates.note_cooling(release.0);
            }
            _ => return Ok(ip),
        }
    }
    Err(exhausted(pool, candidates.census(), clock::now()))
}

fn exhausted(pool: &Pool, census: Census, now: u64) -> Failure {
    let Census { in_use, cooling, next } = census;
    let until = next.map_or_else(String::new, |next| {
        let seconds = next.saturating_sub(now).div_ceil(SECOND);
        format!(", the first of them is usable in {seconds} s")
    });
    let (network, hosts) = (pool.network(), pool.hosts());
    Failure::new(
        Code::TryAgain,
        format!(
            "no address is free in {network}: of {hosts}, {in_use} are in use and {cooling} were released less than 30 s ago{until}"
        ),
    )
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        let code = if matches!(error, LedgerError::Full { .. }) { Code::TryAgain } else { Code::Io };
        Self::of(code, &error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exhaustion_is_explained_with_figures() {
        let pool = Pool::new("10.0.0.0/29".parse().unwrap()).unwrap();
        let census = Census { in_use: 4, cooling: 2, next: Some(50 * SECOND + 1) };
        let failure = exhausted(&pool, census, 40 * SECOND);
        assert_eq!(failure.code, Code::TryAgain);
        assert_eq!(
            failure.message,
            "no address is free in 10.0.0.0/29: of 6, 4 are in use and 2 were released less than 30 s ago, the \
             first of them is usable in 11 s"
        );
    }
}
