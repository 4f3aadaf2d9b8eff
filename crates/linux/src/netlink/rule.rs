//! Rules of policy routing: which packets are looked up in which table.

use futures::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::IpVersion;

use super::{Asked, Netlink, Result};

/// A rule that sends packets of a mark to a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// For IPv6.
    pub v6: bool,
    /// Lower ones are looked at first.
    pub priority: u32,
    /// The mark.
    pub mark: u32,
    /// The bits of the packet's mark that count.
    pub mask: u32,
    /// The routing table.
    pub table: u32,
    /// Who made it.
    pub protocol: u8,
}

impl Rule {
    fn attributes(&self) -> Vec<RuleAttribute> {
        vec![
            RuleAttribute::Priority(self.priority),
            RuleAttribute::FwMark(self.mark),
            RuleAttribute::FwMask(self.mask),
            RuleAttribute::Table(self.table),
            RuleAttribute::Protocol(RouteProtocol::from(self.protocol)),
        ]
    }

    /// `None` for one of another kind.
    fn from_message(message: &RuleMessage) -> Option<Self> {
        let mut rule = Self {
            v6: match message.header.family {
                AddressFamily::Inet => false,
                AddressFamily::Inet6 => true,
                _ => return None,
            },
            priority: 0,
            mark: 0,
            mask: 0,
            table: message.header.table.into(),
            protocol: 0,
        };
        if message.header.action != RuleAction::ToTable {
            return None;
        }
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Priority(priority) => rule.priority = *priority,
                RuleAttribute::FwMark(mark) => rule.mark = *mark,
                RuleAttribute::FwMask(mask) => rule.mask = *mask,
                RuleAttribute::Table(table) => rule.table = *table,
                RuleAttribute::Protocol(protocol) => rule.protocol = u8::from(*protocol),
                _ => {}
            }
        }
        Some(rule)
    }

    fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = match self.v6 {
            false => AddressFamily::Inet,
            true => AddressFamily::Inet6,
        };
        message.header.action = RuleAction::ToTable;
        message.attributes = self.attributes();
        message
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let family = if self.v6 { "IPv6" } else { "IPv4" };
        let Self {
            priority,
            mark,
            mask,
            table,
            ..
        } = self;
        write!(
            f,
            "{priority}: fwmark {mark:#x}/{mask:#x} lookup {table} ({family})"
        )
    }
}

impl Netlink {
    /// Adds a rule; one that is there already is an error.
    pub async fn add_rule(&self, rule: &Rule) -> Result<()> {
        let mut request = self.handle.rule().add();
        *request.message_mut() = rule.message();
        let what = || format!("add rule {rule}");
        request.execute().await.asked(what)
    }

    /// Removes a rule.
    pub async fn del_rule(&self, rule: &Rule) -> Result<()> {
        let what = || format!("remove rule {rule}");
        let request = self.handle.rule().del(rule.message());
        request.execute().await.asked(what)
    }

    /// All rules of both families that send packets to a table; what else they ask is not said.
    pub async fn rules(&self) -> Result<Vec<Rule>> {
        let mut rules = Vec::new();
        for family in [IpVersion::V4, IpVersion::V6] {
            let mut answers = self.handle.rule().get(family).execute();
            loop {
                match answers.try_next().await.asked(|| "list rules".into()) {
                    Ok(Some(message)) => rules.extend(Rule::from_message(&message)),
                    Ok(None) => break,
                    // The kernel has none, or not of this family.
                    Err(error) if error.is_unknown() => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(rules)
    }
}
