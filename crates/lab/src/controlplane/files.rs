//! The control plane's folder: where each file is, and the text of those
//! that the lab writes itself (tokens, kubeconfigs).

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Who asks the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// Member of `system:masters`: may do everything.
    Admin,
    /// The ServiceAccount of Corten's controller: what RBAC gives it.
    Controller,
    /// The ServiceAccount of Corten's agents.
    Agent,
}

impl Account {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Admin, Self::Controller, Self::Agent];

    fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Controller => "controller",
            Self::Agent => "agent",
        }
    }

    /// Its line of the token file: token, user, uid, groups. The user names
    /// are those that RBAC knows the ServiceAccounts by, so that the shipped
    /// roles are tested without a token controller.
    fn line(self) -> String {
        let token = token(self.name());
        let namespace = "metallb-system";
        match self {
            Self::Admin => format!("{token},admin,admin,\"system:masters\"\n"),
            Self::Controller | Self::Agent => {
                let name = self.name();
                format!(
                    "{token},system:serviceaccount:{namespace}:corten-{name},{name},\
                     \"system:serviceaccounts,system:serviceaccounts:{namespace}\"\n"
                )
            }
        }
    }
}

/// One more who asks the API server: a part of the cluster.
#[derive(Clone, Debug)]
pub(crate) struct User {
    /// What its kubeconfig is called.
    pub(crate) name: String,
    /// Its name for the API server.
    pub(crate) user: String,
    /// Its groups, separated by commas.
    pub(crate) groups: String,
}

impl User {
    fn line(&self) -> String {
        let Self { name, user, groups } = self;
        format!("{},{user},{name},\"{groups}\"\n", token(name))
    }
}

/// No secret: only the lab's own namespaces reach this API server.
fn token(name: &str) -> String {
    format!("lab-{name}")
}

/// All requests, once each, without their content.
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
";

/// Paths in the folder.
#[derive(Clone, Debug)]
pub(super) struct Files {
    dir: PathBuf,
}

impl Files {
    /// Makes the folder, which must not exist (old data would pass for new),
    /// and writes the token file and the kubeconfigs: the accounts' and those
    /// of `users`.
    pub(super) fn create(dir: &Path, server: SocketAddr, users: &[User]) -> io::Result<Self> {
        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::create_dir(dir)?;
        let files = Self {
            dir: dir.canonicalize()?,
        };
        fs::write(files.audit_policy(), AUDIT_POLICY)?;
        let accounts = Account::ALL.into_iter().map(Account::line);
        let tokens: String = accounts.chain(users.iter().map(User::line)).collect();
        fs::write(files.tokens(), tokens)?;
        let mut names: Vec<&str> = Account::ALL.into_iter().map(Account::name).collect();
        names.extend(users.iter().map(|user| user.name.as_str()));
        for name in names {
            let config = kubeconfig(server, name, &files.ca());
            fs::write(files.kubeconfig_of(name), config)?;
        }
        Ok(files)
    }

    /// The API server makes its certificate and key here.
    pub(super) fn certificates(&self) -> PathBuf {
        self.dir.join("certificates")
    }

    /// Certificate and authority of the API server, in one file.
    pub(super) fn ca(&self) -> PathBuf {
        self.certificates().join("apiserver.crt")
    }

    /// Signs ServiceAccount tokens too: one key less to make.
    pub(super) fn key(&self) -> PathBuf {
        self.certificates().join("apiserver.key")
    }

    pub(super) fn tokens(&self) -> PathBuf {
        self.dir.join("tokens.csv")
    }

    pub(super) fn kubeconfig(&self, account: Account) -> PathBuf {
        self.kubeconfig_of(account.name())
    }

    /// The kubeconfig of an account or user by its name.
    pub(super) fn kubeconfig_of(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.kubeconfig"))
    }

    pub(super) fn audit_policy(&self) -> PathBuf {
        self.dir.join("audit-policy.yaml")
    }

    /// One JSON object a line: who asked for what, and what was decided.
    pub(super) fn audit_log(&self) -> PathBuf {
        self.dir.join("audit.log")
    }

    /// kubectl's discovery cache.
    pub(super) fn cache(&self) -> PathBuf {
        self.dir.join("kubectl-cache")
    }
}

fn kubeconfig(server: SocketAddr, name: &str, ca: &Path) -> String {
    let (token, ca) = (token(name), ca.display());
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         current-context: lab\n\
         clusters:\n\
         - name: lab\n  \
           cluster:\n    \
             server: https://{server}\n    \
             certificate-authority: '{ca}'\n\
         contexts:\n\
         - name: lab\n  \
           context: {{cluster: lab, user: {name}}}\n\
         users:\n\
         - name: {name}\n  \
           user: {{token: {token}}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubeconfig_of_an_ipv6_server_has_brackets_and_the_account_s_token() {
        let text = kubeconfig(
            "[fd00::1]:6443".parse().unwrap(),
            "agent",
            Path::new("/lab/apiserver.crt"),
        );
        let expected = "\
apiVersion: v1
kind: Config
current-context: lab
clusters:
- name: lab
  cluster:
    server: https://[fd00::1]:6443
    certificate-authority: '/lab/apiserver.crt'
contexts:
- name: lab
  context: {cluster: lab, user: agent}
users:
- name: agent
  user: {token: lab-agent}
";
        assert_eq!(text, expected);
    }

    #[test]
    fn only_the_admin_is_master_and_the_others_are_service_accounts() {
        assert_eq!(
            Account::Admin.line(),
            "lab-admin,admin,admin,\"system:masters\"\n"
        );
        assert_eq!(
            Account::Agent.line(),
            "lab-agent,system:serviceaccount:metallb-system:corten-agent,agent,\
             \"system:serviceaccounts,system:serviceaccounts:metallb-system\"\n"
        );
    }
}
