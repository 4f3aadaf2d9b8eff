//! Manifests: YAML or JSON text to objects, and what is wrong with the text.
//!
//! Owns the reading of files that people write. Every fault is a [`Problem`] with the line of
//! the very field; a bad document leaves the others of its file alone. What kubectl accepts is
//! accepted (several documents, `kind: List`, nulls for unset), what the API server's strict
//! validation refuses is a problem (unknown and duplicate fields, schema violations). Whether a
//! good object makes sense is decided in `plan`.
//!
//! Scalars follow YAML 1.2's core schema: `yes` and `0o17` are not what they were in YAML 1.1.
//! Bounded: size of the file, depth, number of values, growth by aliases.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use api::object::Object;

mod core_kinds;
mod document;
mod judge;
mod node;
mod scalar;
mod together;

#[cfg(test)]
mod tests;

use node::Node;
pub use together::{Judged, together};

/// The most bytes of a file.
pub const MAX_FILE_BYTES: usize = 8 << 20;

/// What a file holds.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// Objects without a fault, in order of the file.
    pub manifests: Vec<Manifest>,
    /// Faults, in order of the file. An object with a fault is not in `manifests`.
    pub problems: Vec<Problem>,
}

/// One good object of a file.
#[derive(Clone)]
pub struct Manifest {
    /// File, as given to [`parse`].
    pub file: String,
    /// Where the object begins.
    pub at: Position,
    /// The object; a namespaced one has its namespace set.
    pub object: Object,
    source: Node,
}

impl Manifest {
    /// Where a field like `spec.ports[0].port` is; a missing field is where its parent is.
    pub fn position(&self, field: &str) -> Position {
        self.source.find(field)
    }

    /// The object as it is written, as a document of a file.
    pub fn text(&self) -> String {
        format!("---\n{}\n", self.source.to_json())
    }
}

impl fmt::Debug for Manifest {
    /// Without the text, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manifest")
            .field("file", &self.file)
            .field("at", &self.at)
            .field("object", &self.object)
            .finish_non_exhaustive()
    }
}

/// A place in a file; both count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

/// Names an object in a message: `Kind namespace/name`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectRef {
    /// `group/version`.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Namespace; empty for cluster-scoped and foreign kinds.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectRef {
    /// Names an object that was understood, without its version.
    pub fn of(object: &Object) -> Self {
        Self {
            api_version: String::new(),
            kind: object.kind().to_owned(),
            namespace: object.namespace().to_owned(),
            name: object.name().to_owned(),
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            f.write_str(&self.kind)
        } else if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// What is wrong, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// File, as given to [`parse`].
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, where it is known.
    pub column: Option<usize>,
    /// The object, where it is known.
    pub object: Option<ObjectRef>,
    /// Path of the field, where the fault is in one.
    pub field: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        write!(f, "{} ({})", self.message, self.remedy)
    }
}

/// Reads a file and parses it; never more of it than may be parsed.
pub fn read(path: &Path) -> io::Result<Parsed> {
    let mut bytes = Vec::new();
    let limit = MAX_FILE_BYTES as u64 + 1;
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(parse(&path.display().to_string(), &bytes))
}

/// The one document of a file that holds no objects, as JSON; an empty one is an empty object.
pub(crate) fn value(file: &str, bytes: &[u8]) -> Result<serde_json::Value, Box<Problem>> {
    let refuse = |message: &str, remedy: &str| {
        Box::new(Problem {
            file: file.to_owned(),
            line: 1,
            column: None,
            object: None,
            field: None,
            message: message.to_owned(),
            remedy: remedy.to_owned(),
        })
    };
    let text = std::str::from_utf8(bytes)
        .map_err(|_| refuse("not UTF-8 text", "save the file as UTF-8"))?;
    let mut found = None;
    for chunk in document::split(text) {
        let (documents, broken) = node::read(chunk);
        for document in documents {
            if let Some(fault) = document.faults.into_iter().next() {
                return Err(Box::new(fault.into_problem(file, None)));
            }
            if found.replace(document.root.to_json()).is_some() {
                return Err(refuse("more than one document", "leave one"));
            }
        }
        if let Some(fault) = broken {
            return Err(Box::new(fault.into_problem(file, None)));
        }
    }
    Ok(found.unwrap_or_else(|| serde_json::json!({})))
}

/// Reads the text of a file. `file` is only a name, for messages.
pub fn parse(file: &str, bytes: &[u8]) -> Parsed {
    let mut parsed = Parsed::default();
    let mut refuse = |line: usize, message: String, remedy: &str| {
        parsed.problems.push(Problem {
            file: file.to_owned(),
            line,
            column: None,
            object: None,
            field: None,
            message,
            remedy: remedy.to_owned(),
        });
    };
    if bytes.len() > MAX_FILE_BYTES {
        let message = format!("more than {MAX_FILE_BYTES} bytes");
        refuse(1, message, "split the file");
        return parsed;
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
            refuse(line, "not UTF-8 text".to_owned(), "save the file as UTF-8");
            return parsed;
        }
    };
    for chunk in document::split(text) {
        let (documents, faults) = node::read(chunk);
        for document in documents {
            judge::document(file, document, &mut parsed);
        }
        parsed.problems.extend(
            faults
                .into_iter()
                .map(|fault| fault.into_problem(file, None)),
        );
    }
    parsed
}
