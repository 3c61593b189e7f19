//! Who serves UDP, in a number: the programs compare it with the one that they saw last, and look again when it differs.

use portolan_abi::{Addr, Backend, FrontendKey};

/// A number for the backends of a frontend. It follows from nothing but these, so that a daemon that was interrupted
/// between two writes finds out by itself that the programs were not told.
pub(crate) fn fingerprint(key: &FrontendKey, backends: &[Backend]) -> u32 {
    let numbers = |addr: Addr, port: u16| addr.words().into_iter().chain([u32::from(port)]);
    let backends = backends.iter().flat_map(|backend| numbers(backend.addr, backend.port.get()));
    let hash = numbers(key.addr, key.port.get()).chain(backends).fold(FNV_BASIS, |hash, word| {
        word.to_ne_bytes()
            .into_iter()
            .fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME))
    });
    // The upper half has been through all of the multiplications.
    u32::try_from(hash >> 32).expect("it is half a number")
}

/// FNV-1a (draft-eastlake-fnv).
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

#[cfg(test)]
mod tests {
    use portolan_abi::{Port, Proto};

    use super::*;

    #[test]
    fn it_differs_by_frontend_and_by_every_backend() {
        let key = |port| FrontendKey::new(Addr::ANY_V4, Port::new(port), Proto::UDP);
        let backend = |last: u8, port| Backend {
            addr: std::net::IpAddr::from([10, 0, 0, last]).into(),
            port: Port::new(port),
            flags: 0,
        };
        let sets = [
            fingerprint(&key(53), &[]),
            fingerprint(&key(54), &[]),
            fingerprint(&key(53), &[backend(1, 53)]),
            fingerprint(&key(53), &[backend(2, 53)]),
            fingerprint(&key(53), &[backend(1, 54)]),
            fingerprint(&key(53), &[backend(1, 53), backend(2, 53)]),
        ];
        assert_eq!(std::collections::BTreeSet::from(sets).len(), sets.len());
    }
}
