//! Places objects one after the other, each among the older ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::address::Blocks;
use super::bgp;
use super::community::{Alias, CommunityValue};
use super::l2::PoolChoice;
use super::linux::{self, LinuxAdvertisement};
use super::verdict::{Findings, finding};
use super::{
    BgpAdvertisement, Compiled, Context, Draft, Finding, L2Advertisement, Object, ObjectKind,
    ObjectRef, Objects, Password, Peer, SecretFacts, draft, native, peer, pool, secret,
};
use crate::ipam::Pool;
use crate::name::Name;
use crate::world::Labels;

/// One pass over all objects. Everything in it is older than the object that comes next.
pub(super) struct Compiler<'a> {
    last_good: &'a Objects,
    context: Context<'a>,
    compiled: Compiled,
    /// Blocks of pools in force.
    taken: Blocks<ObjectRef>,
    /// Labels and entries of pools in force.
    labels: BTreeMap<Name, Labels>,
    entries: BTreeMap<Name, Vec<pool::Entry>>,
    /// Aliases in force, each with its object.
    aliases: BTreeMap<Name, CommunityValue>,
    alias_owners: BTreeMap<Name, ObjectRef>,
    /// Who has a name, of those that share one space of names.
    names: BTreeMap<(Space, Name), ObjectRef>,
    /// What is to be told of objects that were placed before.
    notes: Vec<(ObjectRef, Finding)>,
}

/// Kinds whose objects must not bear the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Space {
    Pools,
    Peers,
    L2,
    Linux,
    Bgp,
}

/// An object and what was found about its newest form.
struct Judged {
    reference: ObjectRef,
    /// When its kind's turn comes.
    turn: u8,
    /// Of the newest form; text order is time order.
    created: Option<String>,
    newest: Arc<Object>,
    /// `None`: it is bad by itself.
    draft: Option<Draft>,
    found: Findings,
}

/// What an object comes to among the older ones.
enum Placed {
    Pool(Pool, Vec<pool::Entry>),
    Aliases(Vec<Alias>),
    Profile(super::BfdProfile),
    Peer(Box<Peer>),
    L2(L2Advertisement),
    Linux(LinuxAdvertisement),
    Bgp(Box<BgpAdvertisement>),
}

/// Which form is placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Every conflict is an error.
    Newest,
    /// What conflicts is left out of it, if something remains.
    LastGood,
}

impl<'a> Compiler<'a> {
    pub(super) fn new(last_good: &'a Objects, context: Context<'a>) -> Self {
        Self {
            last_good,
            context,
            compiled: Compiled::default(),
            taken: Blocks::default(),
            labels: BTreeMap::new(),
            entries: BTreeMap::new(),
            aliases: BTreeMap::new(),
            alias_owners: BTreeMap::new(),
            names: BTreeMap::new(),
            notes: Vec::new(),
        }
    }

    pub(super) fn run(mut self, objects: &Objects) -> Compiled {
        let mut judged: Vec<Judged> = objects
            .iter()
            .filter_map(|(reference, object)| self.judge(reference, object))
            .collect();
        let key = |j: &Judged| {
            let ObjectRef { kind, name, .. } = &j.reference;
            (j.turn, j.created.clone(), name.clone(), *kind)
        };
        judged.sort_by_cached_key(key);
        for judged in judged {
            self.settle(judged);
        }
        self.warn_of_unknown_peers();
        for (reference, finding) in self.notes {
            if let Some(verdict) = self.compiled.verdicts.get_mut(&reference) {
                verdict.warn(Finding {
                    warning: true,
                    ..finding
                });
            }
        }
        self.compiled
    }

    /// The rules that need no other object. `None`: it is of another namespace.
    fn judge(&mut self, reference: &ObjectRef, object: &Arc<Object>) -> Option<Judged> {
        let mut found = Findings::default();
        let namespace = self.context.namespace;
        if *reference.namespace != *namespace {
            found.error(
                "metadata.namespace",
                format!("resource must be created in {namespace} namespace"),
                format!("move it to the namespace {namespace}"),
            );
            let verdict = found.verdict(false);
            self.compiled.verdicts.insert(reference.clone(), verdict);
            return None;
        }
        let draft = draft(object, &mut found).filter(|_| found.errors.is_empty());
        Some(Judged {
            reference: reference.clone(),
            turn: match reference.kind {
                ObjectKind::Community | ObjectKind::BFDProfile => 0,
                ObjectKind::IPAddressPool | ObjectKind::AddressPool => 1,
                _ => 2,
            },
            created: object.metadata().creation_timestamp.clone(),
            newest: object.clone(),
            draft,
            found,
        })
    }

    /// Puts the newest form into force, or else the last good one, or else nothing.
    fn settle(&mut self, judged: Judged) {
        let Judged {
            reference,
            newest,
            draft: drafted,
            mut found,
            ..
        } = judged;
        if let Some(drafted) = drafted
            && let Some(placed) = self.place(&reference, drafted, Form::Newest, &mut found)
            && found.errors.is_empty()
        {
            self.enter(&reference, &newest, placed);
            self.conclude(reference, Some(newest), found, false);
            return;
        }
        let mut quiet = Findings::default();
        let earlier = self.last_good.get(&reference).and_then(|form| {
            let drafted = draft(form, &mut quiet)?;
            quiet.errors.is_empty().then(|| (form.clone(), drafted))
        });
        let Some((form, drafted)) = earlier else {
            self.conclude(reference, None, found, false);
            return;
        };
        let placed = self.place(&reference, drafted, Form::LastGood, &mut quiet);
        let in_force = placed.is_some();
        if let Some(placed) = placed {
            self.enter(&reference, &form, placed);
        }
        // It is remembered even where something is in its way: that may go.
        self.conclude(reference, Some(form), found, in_force);
    }

    fn conclude(
        &mut self,
        reference: ObjectRef,
        accepted: Option<Arc<Object>>,
        found: Findings,
        last_good: bool,
    ) {
        let verdict = found.renamed(native::names(reference.kind));
        let verdict = verdict.verdict(last_good);
        if let Some(form) = accepted {
            self.compiled.accepted.insert(reference.clone(), form);
        }
        self.compiled.verdicts.insert(reference, verdict);
    }

    /// What the object comes to. `None`: nothing of it can be in force.
    fn place(
        &mut self,
        reference: &ObjectRef,
        drafted: Draft,
        form: Form,
        found: &mut Findings,
    ) -> Option<Placed> {
        match drafted {
            Draft::Pool(pool) => self.place_pool(reference, pool, form, found),
            Draft::Aliases(aliases) => self.place_aliases(aliases, form, found),
            Draft::Profile(profile) => Some(Placed::Profile(profile)),
            Draft::Peer(peer) => self.place_peer(reference, peer, form, found),
            Draft::L2(choice, mut advertisement) => {
                self.name_is_free(Space::L2, reference, found)?;
                advertisement.pools = choice.resolve(&self.labels, found);
                Some(Placed::L2(advertisement))
            }
            Draft::Linux(choice, advertisement) => {
                self.place_linux(reference, &choice, advertisement, form, found)
            }
            Draft::Bgp(drafted) => self.place_bgp(reference, *drafted, form, found),
        }
    }

    /// Objects of two dialects may not share a name where only the name says which is meant.
    fn name_is_free(
        &self,
        space: Space,
        reference: &ObjectRef,
        found: &mut Findings,
    ) -> Option<()> {
        let owner = self.names.get(&(space, reference.name.clone()));
        if let Some(owner) = owner {
            found.error(
                "metadata.name",
                format!(
                    "duplicate definition of {:?}: the older {:?} has the name",
                    reference.name, owner.kind
                ),
                "choose another name",
            );
        }
        owner.is_none().then_some(())
    }

    fn place_pool(
        &mut self,
        reference: &ObjectRef,
        drafted: pool::Draft,
        form: Form,
        found: &mut Findings,
    ) -> Option<Placed> {
        self.name_is_free(Space::Pools, reference, found)?;
        if form == Form::LastGood {
            let entries = drafted.entries.clone();
            return Some(Placed::Pool(pool::freeze(drafted, &self.taken), entries));
        }
        for (block, owner) in pool::check_overlaps(&drafted, reference.kind, &self.taken, found) {
            if owner.kind != reference.kind {
                let message = format!(
                    "the younger {:?} {:?} wants {block} too and is left out",
                    reference.kind, reference.name
                );
                let remedy = "leave the addresses to one of the two pools";
                self.notes
                    .push((owner, finding("spec.addresses", message, remedy)));
            }
        }
        pool::check_ranges(&drafted, &self.context.ranges, found);
        Some(Placed::Pool(drafted.pool, drafted.entries))
    }

    fn place_aliases(
        &self,
        mut aliases: Vec<Alias>,
        form: Form,
        found: &mut Findings,
    ) -> Option<Placed> {
        for alias in &aliases {
            if form == Form::Newest
                && let Some(owner) = self.alias_owners.get(&alias.name)
            {
                found.error(
                    format!("spec.communities[{}].name", alias.entry),
                    format!(
                        "duplicate definition of community {:?}: the older {:?} {:?} has it",
                        alias.name, owner.kind, owner.name
                    ),
                    "give every alias its own name",
                );
                found.upstream(format!(
                    "duplicate definition of community {:?}",
                    alias.name
                ));
            }
        }
        aliases.retain(|alias| !self.alias_owners.contains_key(&alias.name));
        Some(Placed::Aliases(aliases))
    }

    fn place_peer(
        &self,
        reference: &ObjectRef,
        mut peer: Box<Peer>,
        form: Form,
        found: &mut Findings,
    ) -> Option<Placed> {
        self.name_is_free(Space::Peers, reference, found)?;
        let before = found.errors.len();
        let bgp = &self.compiled.config.bgp;
        for older in bgp.peers.values() {
            peer::check_pair(&peer, older, &self.context, found);
        }
        if bgp.echoes(&peer) {
            for ad in bgp.advertisements.values() {
                let pool = bgp::echo_conflict(ad, &peer, &self.compiled.config.pools);
                if let Some(pool) = pool {
                    found.error(
                        "spec.bfdProfile",
                        bgp::echo_message(pool, &ad.name, &peer.name),
                        "choose a profile without echo, or keep IPv6 pools from this peer",
                    );
                    found.upstream(bgp::echo_message(pool, &ad.name, &peer.name));
                }
            }
        }
        if form == Form::LastGood && found.errors.len() > before {
            return None;
        }
        if let (Some(secrets), Password::Secret { name, digest }) =
            (self.context.secrets, &mut peer.password)
        {
            let namespace = self.context.namespace;
            secret::check(&peer.name, name, namespace, secrets, found);
            let password = secrets.get(name).and_then(SecretFacts::usable);
            *digest =
                password.map(|password| super::password_digest(namespace, name, password.reveal()));
        }
        if let Some(profile) = &peer.bfd_profile
            && !bgp.bfd_profiles.contains_key(profile)
        {
            found.transient(
                "spec.bfdProfile",
                format!(
                    "peer {} referencing non existing bfd profile {profile}",
                    peer.name
                ),
                "create the BFDProfile, or leave it out",
            );
            found.upstream(format!(
                "peer {} referencing non existing bfd profile {profile}",
                peer.name
            ));
            // A session that was there goes on without.
            peer.bfd_profile = None;
        }
        Some(Placed::Peer(peer))
    }

    fn place_linux(
        &self,
        reference: &ObjectRef,
        choice: &PoolChoice,
        mut ad: LinuxAdvertisement,
        form: Form,
        found: &mut Findings,
    ) -> Option<Placed> {
        self.name_is_free(Space::Linux, reference, found)?;
        ad.pools = choice.resolve(&self.labels, found);
        let lengths = (ad.length_v4, ad.length_v6);
        ad.pools.retain(|name| {
            let before = found.errors.len();
            if let Some(pool) = self.compiled.config.pools.get(name) {
                let entries = self.entries.get(name).map_or(&[][..], Vec::as_slice);
                bgp::check_lengths(linux::PLACE, lengths, (pool, entries), found);
            }
            form != Form::LastGood || found.errors.len() == before
        });
        Some(Placed::Linux(ad))
    }

    fn place_bgp(
        &self,
        reference: &ObjectRef,
        drafted: bgp::Draft,
        form: Form,
        found: &mut Findings,
    ) -> Option<Placed> {
        self.name_is_free(Space::Bgp, reference, found)?;
        let before = found.errors.len();
        let mut ad = drafted.advertisement;
        ad.communities = bgp::resolve(&drafted.communities, &self.aliases, found);
        // Without a community that was to bound it a route could go anywhere.
        if form == Form::LastGood && found.errors.len() > before {
            return None;
        }
        ad.pools = drafted.choice.resolve(&self.labels, found);
        let config = &self.compiled.config;
        for name in ad.pools.clone() {
            let before = found.errors.len();
            let Some(pool) = config.pools.get(&name) else {
                continue;
            };
            let entries = self.entries.get(&name).map_or(&[][..], Vec::as_slice);
            let others = config.bgp.advertisements.values();
            let others = others.filter(|other| other.pools.contains(&name));
            bgp::check_pool(&ad, (pool, entries), others, &self.context, found);
            if form == Form::LastGood && found.errors.len() > before {
                ad.pools.remove(&name);
            }
        }
        for peer in config.bgp.peers.values() {
            if !config.bgp.echoes(peer) {
                continue;
            }
            while let Some(pool) = bgp::echo_conflict(&ad, peer, &config.pools).cloned() {
                if form == Form::Newest {
                    found.error(
                        "spec.peers",
                        bgp::echo_message(&pool, &ad.name, &peer.name),
                        "leave out the peer or the IPv6 pool, or give the peer a BFD profile \
                         without echo",
                    );
                    found.upstream(bgp::echo_message(&pool, &ad.name, &peer.name));
                    break;
                }
                ad.pools.remove(&pool);
            }
        }
        Some(Placed::Bgp(Box::new(ad)))
    }

    fn enter(&mut self, reference: &ObjectRef, form: &Object, placed: Placed) {
        let name = reference.name.clone();
        let config = &mut self.compiled.config;
        let space = match placed {
            Placed::Pool(pool, entries) => {
                for block in &pool.blocks {
                    self.taken.insert(*block, reference.clone());
                }
                let labels = form.metadata().labels.clone();
                self.labels.insert(name.clone(), labels);
                self.entries.insert(name.clone(), entries);
                config.pools.insert(name.clone(), pool);
                Space::Pools
            }
            Placed::Aliases(aliases) => {
                for Alias { name, value, .. } in aliases {
                    self.alias_owners.insert(name.clone(), reference.clone());
                    self.aliases.insert(name, value);
                }
                return;
            }
            Placed::Profile(profile) => {
                config.bgp.bfd_profiles.insert(name, profile);
                return;
            }
            Placed::Peer(peer) => {
                config.bgp.peers.insert(name.clone(), *peer);
                Space::Peers
            }
            Placed::L2(advertisement) => {
                config.l2.insert(name.clone(), advertisement);
                Space::L2
            }
            Placed::Linux(advertisement) => {
                config.linux.insert(name.clone(), advertisement);
                Space::Linux
            }
            Placed::Bgp(advertisement) => {
                config
                    .bgp
                    .advertisements
                    .insert(name.clone(), *advertisement);
                Space::Bgp
            }
        };
        self.names.insert((space, name), reference.clone());
    }

    /// Peers may be younger than the advertisements that name them.
    fn warn_of_unknown_peers(&mut self) {
        let bgp = &self.compiled.config.bgp;
        for ((space, name), reference) in &self.names {
            let Some(ad) = bgp
                .advertisements
                .get(name)
                .filter(|_| *space == Space::Bgp)
            else {
                continue;
            };
            let field = match reference.kind {
                ObjectKind::Advertisement => "spec.bgp.peers",
                _ => "spec.peers",
            };
            for peer in ad
                .peers
                .iter()
                .filter(|peer| !bgp.peers.contains_key(*peer))
            {
                let finding = finding(
                    field,
                    format!("no BGPPeer {peer:?} is in force"),
                    "create the peer, or correct the name",
                );
                self.notes.push((reference.clone(), finding));
            }
        }
    }
}
