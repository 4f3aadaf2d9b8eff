//! The session's form: what a change of it takes.

use api::corten::v1alpha1::SessionState;
use plan::announce::bgp::{PeerSession, SessionChange};
use plan::config::{Hidden, Password};
use proto::bgp::fsm::{Reset, Stop};

use super::super::neighbour::Locator;
use super::super::{connection, label, route};
use super::Task;
use super::account::counts;

impl Task {
    /// A Service's address and its announcement change the routes; this changes the session.
    pub(super) fn change(&mut self, session: PeerSession, password: Option<Hidden>) {
        let deep = self.session.change_to(&session);
        // A Secret that is gone takes no session with it.
        let gone = matches!(session.password, Password::Secret { digest: None, .. });
        let password = match password {
            None if gone && deep < SessionChange::Reopen => self.password.clone(),
            password => password,
        };
        let deep = if self.password == password {
            deep
        } else {
            deep.max(SessionChange::Reopen)
        };
        self.session = session;
        self.password = password;
        match deep {
            SessionChange::Nothing => {}
            SessionChange::Live => self.retune(),
            SessionChange::Reopen | SessionChange::Replace => self.reopen(deep),
        }
        if self.intake.set_policy(self.session.receive.clone()) {
            self.ask_again();
        }
        self.offer_all();
    }

    /// Takes over what the session need not be closed for.
    pub(super) fn retune(&mut self) {
        tracing::info!(
            peer = &*self.peer,
            "the session's settings changed; an open one stays open"
        );
        let settings = route::settings(&self.session, &self.context.node, false);
        self.fsm.retune(self.now(), &settings);
        if let Some(live) = &self.live {
            connection::retune(&live.stream, &self.session);
        }
        if self.established.is_some() {
            self.follow_path();
        }
    }

    /// Closes the session and opens it in its new form: as over a restart where the peer is the
    /// same and keeps our routes meanwhile, as we do its.
    pub(super) fn reopen(&mut self, deep: SessionChange) {
        tracing::info!(peer = &*self.peer, "the session's settings changed");
        // One who only helps has not asked the peer to keep anything.
        let config = self.fsm.config().graceful;
        let asked = config.is_some_and(|it| !it.families.is_empty());
        let both = self.fsm.session().is_some_and(|it| it.graceful.is_some());
        let restart = asked && both && deep == SessionChange::Reopen;
        let stop = if restart {
            Stop::Restart
        } else {
            let text = "configuration changed".to_owned();
            Stop::Drain { text }
        };
        self.fsm.stop(self.now(), stop);
        self.settle();
        self.down_metric();
        self.label = label(&self.session);
        if deep == SessionChange::Replace {
            self.bfd.forget();
            self.locator = Locator::new(&self.session, self.context.interfaces.clone());
        }
        match self.draining.over() {
            Some(why) => self.line.show(&self.label, SessionState::Drained, &why),
            None => self.begin_anew(restart),
        }
    }

    /// Begins a session where none was wanted, or in its new form. `restart`: the peer may have our
    /// routes from before.
    pub(super) fn begin_anew(&mut self, restart: bool) {
        self.counts = counts(&self.context, &self.session);
        self.line.show(&self.label, SessionState::Connecting, "");
        let settings = route::settings(&self.session, &self.context.node, restart);
        self.fsm.renew(settings);
        self.fsm.start_later(self.now());
    }

    /// The interface tells something new of the peer.
    pub(super) fn located(&mut self) {
        let live = self.live.as_ref();
        match live.and_then(|live| live.stream.peer_addr().ok()) {
            Some(peer) if self.locator.has_lost(peer) => {
                self.fsm.reset(self.now(), Reset::LinkDown);
            }
            Some(_) => {}
            None => self.fsm.hurry(self.now()),
        }
    }
}
