//! What is wanted of what is seen.

use std::net::IpAddr;

use anyhow::{Result, bail};

use super::{Question, Seen};

/// What is wanted.
#[derive(Debug, Default)]
pub(super) struct Filter {
    service: Option<String>,
    pod: Option<Pod>,
    drops: bool,
}

#[derive(Debug)]
enum Pod {
    Named(String),
    At(IpAddr),
}

impl Filter {
    /// # Errors
    /// When a name is none.
    pub(super) fn parse(question: &Question) -> Result<Self> {
        let Question { service, pod, drops, .. } = question;
        if service.as_ref().is_some_and(|name| !name.contains('/')) {
            bail!("--service takes NAMESPACE/NAME: `portolan services` lists them");
        }
        let pod = match pod {
            None => None,
            Some(name) if name.contains('/') => Some(Pod::Named(name.clone())),
            Some(addr) => match addr.parse() {
                Ok(addr) => Some(Pod::At(addr)),
                Err(_) => bail!("--pod takes NAMESPACE/NAME or an address: `portolan pods` lists them"),
            },
        };
        Ok(Self { service: service.clone(), pod, drops: *drops })
    }

    pub(super) fn wants(&self, seen: &Seen) -> bool {
        (!self.drops || seen.event.is_end())
            && self.service.as_ref().is_none_or(|name| seen.service.as_ref() == Some(name))
            && self.pod.as_ref().is_none_or(|pod| pod.has(seen))
    }
}

impl Pod {
    fn has(&self, seen: &Seen) -> bool {
        match self {
            Self::Named(name) => seen.pods().any(|pod| pod == name),
            Self::At(addr) => seen.addresses().any(|it| it == *addr),
        }
    }
}
