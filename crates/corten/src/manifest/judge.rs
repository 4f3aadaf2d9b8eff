//! From a document to its objects, or to what is wrong with them.

use api::object::Object;
use api::schema;
use serde_json::Value;

use super::node::{Document, Fault, MAX_FAULTS, Node, Tree};
use super::{Manifest, ObjectRef, Parsed, Position, core_kinds};

/// Lists within lists that are still opened.
const MAX_LIST_DEPTH: usize = 4;

/// Adds the document's objects and problems.
pub(super) fn document(file: &str, document: Document, parsed: &mut Parsed) {
    let Document { root, faults } = document;
    if matches!(root.tree, Tree::Scalar(Value::Null)) && faults.is_empty() {
        return;
    }
    node(file, root, faults, "", 0, parsed);
}

/// One object or one list of them; `faults` are those of the whole document, whose paths begin
/// with `prefix` if they are in this node.
fn node(
    file: &str,
    root: Node,
    faults: Vec<Fault>,
    prefix: &str,
    depth: usize,
    parsed: &mut Parsed,
) {
    if is_list(&root) && depth < MAX_LIST_DEPTH {
        list(file, root, faults, prefix, depth, parsed);
        return;
    }
    let object = object_ref(&root);
    let mut faults: Vec<Fault> = faults
        .into_iter()
        .map(|fault| within(fault, prefix))
        .collect();
    let decoded = check(&root, &mut faults);
    if faults.is_empty()
        && let Some(object) = decoded
    {
        parsed.manifests.push(Manifest {
            file: file.to_owned(),
            at: root.at,
            object,
            source: root,
        });
        return;
    }
    faults.sort_by_key(|fault| fault.at);
    let problems = faults
        .into_iter()
        .map(|fault| fault.into_problem(file, object.clone()));
    parsed.problems.extend(problems);
}

/// A list of objects: each item by itself, then the faults of the list's own fields.
fn list(
    file: &str,
    root: Node,
    mut faults: Vec<Fault>,
    prefix: &str,
    depth: usize,
    parsed: &mut Parsed,
) {
    let object = object_ref(&root);
    let Tree::Map(members) = root.tree else {
        return;
    };
    let items = members
        .into_iter()
        .find(|(key, _)| key == "items")
        .map(|(_, node)| node.tree);
    let Some(Tree::List(items)) = items else {
        return;
    };
    for (i, item) in items.into_iter().enumerate() {
        let prefix = format!("{prefix}items[{i}].");
        let in_item =
            |fault: &mut Fault| fault.field.as_ref().is_some_and(|f| f.starts_with(&prefix));
        let of_item = faults.extract_if(.., in_item).collect();
        node(file, item, of_item, &prefix, depth + 1, parsed);
    }
    let own = faults.into_iter().map(|fault| within(fault, prefix));
    parsed
        .problems
        .extend(own.map(|fault| fault.into_problem(file, object.clone())));
}

/// The fault as one of the object that begins at `prefix`.
fn within(mut fault: Fault, prefix: &str) -> Fault {
    if let Some(field) = &mut fault.field
        && let Some(short) = field.strip_prefix(prefix).map(str::to_owned)
    {
        fault.message = fault.message.replace(field.as_str(), &short);
        *field = short;
    }
    fault
}

/// `v1 List`, or a list of one kind as the API server gives it.
fn is_list(root: &Node) -> bool {
    let kind = root.get("kind").and_then(Node::text).unwrap_or_default();
    let items = root.get("items");
    kind.ends_with("List") && items.is_some_and(|items| matches!(items.tree, Tree::List(_)))
}

fn object_ref(root: &Node) -> Option<ObjectRef> {
    let text = |node: Option<&Node>| node.and_then(Node::text).unwrap_or_default().to_owned();
    let metadata = root.get("metadata");
    let field = |name: &str| text(metadata.and_then(|metadata| metadata.get(name)));
    let mut object = ObjectRef {
        api_version: text(root.get("apiVersion")),
        kind: text(root.get("kind")),
        namespace: field("namespace"),
        name: field("name"),
    };
    if object.kind.is_empty() && object.name.is_empty() {
        return None;
    }
    if object.namespace.is_empty() && is_namespaced(&object) {
        object.namespace = "default".to_owned();
    }
    Some(object)
}

fn is_namespaced(object: &ObjectRef) -> bool {
    let bare = serde_json::json!({"apiVersion": object.api_version, "kind": object.kind});
    Object::decode(bare)
        .ok()
        .and_then(|decoded| decoded.object.namespaced())
        == Some(true)
}

/// Decodes the object and adds what is wrong with it.
fn check(root: &Node, faults: &mut Vec<Fault>) -> Option<Object> {
    let value = root.to_json();
    if !value.is_object() {
        let remedy = "begin with apiVersion, kind and metadata";
        faults.push(fault(
            root.at,
            None,
            "not a Kubernetes object".to_owned(),
            remedy,
        ));
        return None;
    }
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let violations = schema::validate(text("kind"), text("apiVersion"), &value);
    let mut add = |field: &str, message: String, remedy: &str| {
        // The first fault of a field says it best: the schema's goes before the decoder's.
        if faults.len() < MAX_FAULTS
            && !faults
                .iter()
                .any(|fault| fault.field.as_deref() == Some(field))
        {
            let field = Some(field.to_owned()).filter(|f| f != ".");
            let at = root.find(field.as_deref().unwrap_or_default());
            faults.push(fault(at, field, message, remedy));
        }
    };
    for violation in violations {
        let remedy = remedy(&violation.message);
        add(&violation.path, violation.message, remedy);
    }
    match Object::decode(value) {
        Err(error) => {
            let remedy = remedy(&error.message);
            add(&error.path, error.message, remedy);
            None
        }
        Ok(decoded) => {
            for field in decoded.unknown_fields {
                let message = format!("unknown field \"{field}\"");
                add(&field, message, "remove the field or correct its name");
            }
            let mut object = decoded.object;
            name(&mut object, &mut add);
            core_kinds::check(&object, &mut add);
            Some(object)
        }
    }
}

/// Checks the name and fills in the namespace.
fn name(object: &mut Object, add: &mut impl FnMut(&str, String, &str)) {
    let namespaced = object.namespaced() == Some(true);
    let Some(metadata) = object.metadata_mut() else {
        return;
    };
    if metadata.name.is_empty() {
        add(
            "metadata.name",
            "Required value".to_owned(),
            "give the object a name",
        );
    } else if !is_subdomain(&metadata.name) {
        add(
            "metadata.name",
            format!(
                "Invalid value: {:?}: a lowercase RFC 1123 subdomain is wanted",
                metadata.name
            ),
            "use lower case letters, digits, - and . only",
        );
    }
    if !namespaced {
        metadata.namespace.clear();
    } else if metadata.namespace.is_empty() {
        metadata.namespace.push_str("default");
    } else if !is_label(&metadata.namespace) {
        add(
            "metadata.namespace",
            format!(
                "Invalid value: {:?}: a lowercase RFC 1123 label is wanted",
                metadata.namespace
            ),
            "use lower case letters, digits and - only",
        );
    }
}

fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_label_of_any_length)
}

fn is_label(name: &str) -> bool {
    name.len() <= 63 && is_label_of_any_length(name)
}

fn is_label_of_any_length(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('-')
        && !name.ends_with('-')
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn fault(at: Position, field: Option<String>, message: String, remedy: &str) -> Fault {
    Fault {
        at,
        field,
        message,
        remedy: remedy.to_owned(),
    }
}

/// What to do about a message of the schema or of the decoder.
fn remedy(message: &str) -> &'static str {
    if message.starts_with("Required value") || message == "not set" {
        "add the field"
    } else if message.starts_with("Duplicate value") {
        "keep one of them"
    } else if message.starts_with("Unsupported value") {
        "choose one of the supported values"
    } else if message.contains("of type boolean") || message.contains("expected a boolean") {
        "write true or false, without quotes"
    } else if message.contains("of type integer") || message.contains("expected u") {
        "write a whole number in range, without quotes"
    } else if message.contains("of type string") || message.contains("expected a string") {
        "write it in quotes"
    } else {
        "correct the value"
    }
}
