//! Attachments: who they are, and the names and MAC addresses that follow from it.

use std::borrow::Cow;

use portolan_abi::{Attachment, Owner};
use sha2::{Digest as _, Sha256};

use crate::mac::Mac;

/// How many bytes of a network's name the ledger holds. Longer names are refused, because GC tells networks apart by it.
pub const NETWORK_NAME_MAX: usize = 64;

/// The primary key of an attachment (specification 1.1.0, "Overview of the plugin": name of the network,
/// `CNI_CONTAINERID`, `CNI_IFNAME`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<'a> {
    /// `name` of the network configuration.
    pub network: &'a str,
    /// `CNI_CONTAINERID`.
    pub container_id: &'a str,
    /// `CNI_IFNAME`.
    pub ifname: &'a str,
}

impl Key<'_> {
    /// The fixed-size form of the key: see [`Owner`].
    pub fn owner(&self) -> Owner {
        let mut hash = Sha256::new();
        hash.update(self.network);
        hash.update([0]);
        hash.update(self.container_id);
        hash.update([0]);
        hash.update(self.ifname);
        let digest = hash.finalize();
        let mut owner = [0; 16];
        owner.copy_from_slice(&digest[..16]);
        Owner(owner)
    }
}

/// The name of the host side of an owner's veth: `pn` and 12 hexadecimal digits.
pub fn host_ifname(owner: Owner) -> String {
    let [a, b, c, d, e, f, ..] = owner.0;
    format!("pn{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}{f:02x}")
}

/// The MAC address of the pod's interface, unless the runtime asks for another.
pub(crate) const fn pod_mac(owner: Owner) -> Mac {
    let o = owner.0;
    Mac::local([o[4], o[5], o[6], o[7], o[8], o[9]])
}

/// The MAC address of the host side.
pub(crate) const fn host_mac(owner: Owner) -> Mac {
    let o = owner.0;
    Mac::local([o[10], o[11], o[12], o[13], o[14], o[15]])
}

/// The whole of a text field of [`Attachment`], without its padding.
pub fn text(field: &[u8]) -> Cow<'_, str> {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end])
}

/// A text padded with zeros, cut to what fits.
pub(crate) fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    let length = text.len().min(N);
    field[..length].copy_from_slice(&text.as_bytes()[..length]);
    field
}

/// Names an attachment for people: the pod where the runtime told it, the container otherwise.
pub fn describe(attachment: &Attachment) -> String {
    let (namespace, name) = (text(&attachment.pod_namespace), text(&attachment.pod_name));
    let (container, ifname) = (text(&attachment.container_id), text(&attachment.ifname));
    if name.is_empty() {
        format!("container {container}, interface {ifname}")
    } else {
        format!("pod {namespace}/{name} (container {container}, interface {ifname})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: &str = "af0652ddbcd3dd6866cc3989ff9ba8e7";
    const KEY: Key<'_> = Key { network: "portolan", container_id: "abc", ifname: "eth0" };

    #[test]
    fn an_owner_is_the_hash_of_its_key() {
        // printf 'portolan\0abc\0eth0' | sha256sum | cut -c1-32
        let hex: String = KEY.owner().0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, EXPECTED);
        assert_eq!(host_ifname(KEY.owner()), format!("pn{}", &EXPECTED[..12]));
    }

    #[test]
    fn parts_of_a_key_cannot_be_shifted() {
        let other = Key { network: "portolana", container_id: "bc", ..KEY };
        assert_ne!(KEY.owner(), other.owner());
    }

    #[test]
    fn text_survives_padding_and_cutting() {
        assert_eq!(text(&padded::<8>("eth0")), "eth0");
        assert_eq!(text(&padded::<2>("eth0")), "et");
    }
}
