//! Service ports that are not, or not wholly, forwarded, and what was told of them.

use std::collections::BTreeMap;

use plan::forward::PortKey;

/// Why each is refused, told when it begins and when the reason changes: endpoints come and go all
/// the time.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    now: BTreeMap<PortKey, String>,
    /// Of these people do not know yet.
    untold: BTreeMap<PortKey, String>,
}

impl Refusals {
    /// These are all that are refused now; a port may have several reasons.
    pub(super) fn set(&mut self, refused: &[(PortKey, String)]) {
        let mut now: BTreeMap<PortKey, String> = BTreeMap::new();
        for (port, reason) in refused {
            let reasons = now.entry(port.clone()).or_default();
            if !reasons.is_empty() {
                reasons.push_str("; ");
            }
            reasons.push_str(reason);
        }
        self.untold.retain(|port, _| now.contains_key(port));
        for (port, reason) in &now {
            if self.now.get(port) != Some(reason) {
                self.untold.insert(port.clone(), reason.clone());
            }
        }
        self.now = now;
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.now.len()
    }

    /// What is to be told, if there is something; [`Refusals::told`] says that it was.
    pub(super) fn news(&self) -> Option<Vec<(PortKey, String)>> {
        let news = self.untold.iter();
        let news: Vec<_> = news.map(|(k, v)| (k.clone(), v.clone())).collect();
        (!news.is_empty()).then_some(news)
    }

    /// People know all.
    pub(super) fn told(&mut self) {
        self.untold.clear();
    }
}

#[cfg(test)]
mod tests {
    use plan::name::ServiceKey;
    use plan::net::{Family, Protocol};

    use super::*;

    fn port(service: &str) -> PortKey {
        PortKey {
            service: ServiceKey::new("default", service),
            port: "p".into(),
            protocol: Protocol::Tcp,
            family: Family::V4,
        }
    }

    /// Steps: what is refused (`service=reason`), what is told then.
    #[test]
    fn each_change_is_told_once() {
        let mut refusals = Refusals::default();
        let steps = [
            ("", ""),
            ("b=taken", "b=taken"),
            // Another job does not say it again.
            ("b=taken", ""),
            ("b=taken a=no a=never", "a=no; never"),
            ("b=full a=no a=never", "b=full"),
            // One is forwarded, the other less badly.
            ("a=no", "a=no"),
            ("a=no b=full", "b=full"),
            ("", ""),
        ];
        for (number, (refused, told)) in steps.into_iter().enumerate() {
            let refused: Vec<(PortKey, String)> = refused
                .split_whitespace()
                .filter_map(|text| text.split_once('='))
                .map(|(service, reason)| (port(service), reason.to_owned()))
                .collect();
            refusals.set(&refused);
            let news = refusals.news().unwrap_or_default();
            let news: Vec<String> = news
                .iter()
                .map(|(port, reason)| format!("{}={reason}", port.service.name))
                .collect();
            assert_eq!(news.join(" "), told, "step {number}");
            refusals.told();
            assert_eq!(refusals.news(), None);
        }
        assert_eq!(refusals.count(), 0);
    }

    #[test]
    fn what_could_not_be_told_is_told_later_if_it_still_holds() {
        let mut refusals = Refusals::default();
        let of = |service: &str| (port(service), "no".to_owned());
        refusals.set(&[of("a"), of("b")]);
        refusals.set(&[of("b"), of("c")]);
        assert_eq!(refusals.news(), Some(vec![of("b"), of("c")]));
        assert_eq!(refusals.count(), 2);
    }
}
