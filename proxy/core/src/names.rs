//! Names in maps: text padded with zeros.

use std::borrow::Cow;

use portolan_abi::{Port, ServiceInfo};

use crate::object::{ObjectName, ServicePort};

/// What `SERVICES` says about a Service port. A name longer than its field is cut.
pub fn service_info(service: &ObjectName, port: &ServicePort) -> ServiceInfo {
    ServiceInfo {
        namespace: padded(&service.namespace),
        name: padded(&service.name),
        port_name: padded(&port.name),
        port: Port::new(port.port),
        proto: port.proto,
        pad: 0,
    }
}

/// The Service that a [`ServiceInfo`] belongs to.
pub fn service_name(info: &ServiceInfo) -> ObjectName {
    ObjectName::new(text(&info.namespace), text(&info.name))
}

/// The text up to the padding.
pub fn text(field: &[u8]) -> Cow<'_, str> {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end])
}

/// The text, padded with zeros, cut to what fits.
pub fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    let end = text.floor_char_boundary(N);
    field[..end].copy_from_slice(&text.as_bytes()[..end]);
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_map() {
        assert_eq!(text(&padded::<64>("kube-dns")), "kube-dns");
        assert_eq!(text(&padded::<64>("")), "");
        assert_eq!(text(&padded::<4>("abcdef")), "abcd");
        assert_eq!(text(&padded::<4>("abcé")), "abc");
    }
}
