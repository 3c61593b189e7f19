//! What the kernel answers.

use netlink_packet_core::{NetlinkBuffer, NlaBuffer, NlasIterator};
use nix::errno::Errno;

use super::NetlinkError;

/// `NLM_F_CAPPED`: the refusal holds the header of the request only.
const CAPPED: u16 = 0x100;
/// `NLM_F_ACK_TLVS`: attributes follow.
const ACK_TLVS: u16 = 0x200;
/// `NLMSGERR_ATTR_MSG`: a sentence.
const ATTR_MSG: u16 = 1;
/// Size of `struct nlmsghdr`.
const HEADER: usize = 16;

/// One message of an answer.
#[derive(Debug)]
pub(crate) struct Reply {
    /// `nlmsg_flags`.
    pub(crate) flags: u16,
    /// What follows `struct nlmsghdr`.
    pub(crate) payload: Vec<u8>,
}

impl Reply {
    pub(super) fn of(frame: &NetlinkBuffer<&[u8]>) -> Self {
        Self { flags: frame.flags(), payload: frame.payload().to_vec() }
    }

    /// The attributes that follow a header of `skip` bytes, as (kind, value); ends at the first that is malformed.
    pub(crate) fn attributes(&self, skip: usize) -> impl Iterator<Item = (u16, &[u8])> {
        attributes(self.payload.get(skip..).unwrap_or_default())
    }
}

fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).map(|attribute: NlaBuffer<&[u8]>| {
        let value = attribute.into_inner();
        (attribute.kind(), &value[4..usize::from(attribute.length())])
    })
}

/// The error in an `NLMSG_ERROR`; `None` if it is an acknowledgement.
pub(super) fn refusal(frame: &NetlinkBuffer<&[u8]>, what: impl Fn() -> String) -> Option<NetlinkError> {
    let payload = frame.payload();
    let Some((code, echo)) = payload.split_first_chunk::<4>() else {
        return Some(NetlinkError::Malformed { what: what() });
    };
    let code = i32::from_ne_bytes(*code);
    if code == 0 {
        return None;
    }
    let detail = if frame.flags() & ACK_TLVS == 0 { None } else { sentence(frame.flags(), echo) };
    Some(NetlinkError::Refused {
        what: what(),
        errno: Errno::from_raw(code.saturating_neg()),
        detail: detail.map_or_else(String::new, |sentence| format!(" ({sentence})")),
    })
}

/// The kernel's own words, behind what it repeats of the request.
fn sentence(flags: u16, echo: &[u8]) -> Option<String> {
    let length = u32::from_ne_bytes(*echo.first_chunk::<4>()?) as usize;
    let skip = if flags & CAPPED == 0 { length.next_multiple_of(4) } else { HEADER };
    let (_, text) = attributes(echo.get(skip..)?).find(|(kind, _)| *kind == ATTR_MSG)?;
    Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An `NLMSG_ERROR` with these flags; the request that it repeats has no body.
    fn frame(code: i32, flags: u16, tail: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let length = u32::try_from(16 + 4 + 16 + tail.len()).unwrap();
        bytes.extend(length.to_ne_bytes());
        bytes.extend(2u16.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(code.to_ne_bytes());
        bytes.extend(16u32.to_ne_bytes());
        bytes.extend([0; 12]);
        bytes.extend(tail);
        bytes
    }

    fn refused(bytes: &[u8]) -> Option<String> {
        let frame = NetlinkBuffer::new_checked(bytes).unwrap();
        refusal(&frame, || "add a thing".to_owned()).map(|error| error.to_string())
    }

    #[test]
    fn zero_is_an_acknowledgement() {
        assert_eq!(refused(&frame(0, CAPPED, &[])), None);
    }

    #[test]
    fn a_refusal_names_the_request_and_the_errno() {
        let text = refused(&frame(-17, CAPPED, &[])).unwrap();
        assert_eq!(text, "cannot add a thing: EEXIST: File exists");
    }

    #[test]
    fn a_refusal_repeats_the_words_of_the_kernel() {
        let words = [8u8, 0, 1, 0, b'N', b'o', b'!', 0];
        for flags in [ACK_TLVS, ACK_TLVS | CAPPED] {
            let text = refused(&frame(-22, flags, &words)).unwrap();
            assert_eq!(text, "cannot add a thing: EINVAL: Invalid argument (No!)");
        }
    }

    #[test]
    fn a_short_refusal_is_malformed_not_a_panic() {
        let mut bytes = frame(-1, ACK_TLVS, &[]);
        bytes.truncate(18);
        bytes[0] = 18;
        assert!(refused(&bytes).unwrap().contains("cannot be understood"));
    }
}
