//! Ethernet addresses.

use std::{fmt, str::FromStr};

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mac(pub(crate) [u8; 6]);

impl Mac {
    /// A locally administered unicast address of six arbitrary bytes (IEEE 802: bit 1 of the first byte set, bit 0
    /// clear).
    pub(crate) const fn local(mut bytes: [u8; 6]) -> Self {
        bytes[0] = bytes[0] & !1 | 2;
        Self(bytes)
    }
}

impl FromStr for Mac {
    type Err = ();

    /// Six hexadecimal bytes joined by `:` or `-`: a unicast address and not all zeros, as an interface needs it.
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or(())?;
            *byte = u8::from_str_radix(part, 16).map_err(drop)?;
        }
        let usable = bytes != [0; 6] && bytes[0] & 1 == 0 && parts.next().is_none();
        usable.then_some(Self(bytes)).ok_or(())
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes() {
        let mac: Mac = "02:Fe-00:11:22:33".parse().unwrap();
        assert_eq!(mac.to_string(), "02:fe:00:11:22:33");
    }

    #[test]
    fn refuses_what_an_interface_cannot_have() {
        for text in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:00:00",
            "2:0:0:0:0:1",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
        ] {
            assert_eq!(text.parse::<Mac>(), Err(()), "{text}");
        }
    }

    #[test]
    fn a_local_address_is_unicast_and_locally_administered() {
        assert_eq!(Mac::local([0xff; 6]).0[0], 0xfe);
        assert_eq!(Mac::local([0; 6]).0[0], 2);
    }
}
