//! YAML events to a tree that knows where everything stands.
//!
//! Built on the parser's events rather than on a loader: so depth, number of values and growth
//! by aliases are bounded while reading, and a duplicate key is seen.

use std::collections::{BTreeMap, BTreeSet};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};
use serde_json::{Map, Value};

use super::document::Chunk;
use super::{ObjectRef, Position, Problem, scalar};

/// How deep values may nest; the deepest kind of ours needs 8.
const MAX_DEPTH: usize = 64;
/// The most values of a document.
const MAX_VALUES: usize = 1_000_000;
/// The most bytes that all anchored values and all their uses of a document may come to.
const MAX_ALIAS_BYTES: usize = 1 << 20;

/// The most faults that are told of one document; who mends these will see the next.
pub(super) const MAX_FAULTS: usize = 100;

/// A value and its place; the place of a member is that of its key.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) tree: Tree,
}

#[derive(Clone, Debug)]
pub(super) enum Tree {
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// A fault with its place in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) at: Position,
    pub(super) field: Option<String>,
    pub(super) message: String,
    pub(super) remedy: String,
}

impl Fault {
    pub(super) fn into_problem(self, file: &str, object: Option<ObjectRef>) -> Problem {
        Problem {
            file: file.to_owned(),
            line: self.at.line,
            column: Some(self.at.column),
            object,
            field: self.field,
            message: self.message,
            remedy: self.remedy,
        }
    }
}

/// A document, with the faults that leave it readable.
#[derive(Clone, Debug)]
pub(super) struct Document {
    pub(super) root: Node,
    pub(super) faults: Vec<Fault>,
}

/// Reads the documents of a chunk (one, unless `...` parts them). A fault that ends the reading
/// comes second; documents before it stand.
pub(super) fn read(chunk: Chunk<'_>) -> (Vec<Document>, Option<Fault>) {
    let mut reader = Reader {
        parser: Parser::new_from_str(chunk.text),
        lines_before: chunk.lines_before,
        values: 0,
        alias_bytes: 0,
        anchors: BTreeMap::new(),
        path: Vec::new(),
        faults: Vec::new(),
    };
    let mut documents = Vec::new();
    loop {
        match reader.document() {
            Ok(Some(document)) => documents.push(document),
            Ok(None) => return (documents, None),
            Err(fault) => return (documents, Some(fault)),
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    lines_before: usize,
    values: usize,
    alias_bytes: usize,
    anchors: BTreeMap<usize, Node>,
    path: Vec<Step>,
    faults: Vec<Fault>,
}

/// A step of the path to the value being read.
enum Step {
    Key(String),
    Index(usize),
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Result<Option<Document>, Fault> {
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(None),
                Event::DocumentStart(_) => {
                    self.values = 0;
                    self.alias_bytes = 0;
                    self.anchors.clear();
                    self.path.clear();
                    let (event, span) = self.next()?;
                    let root = self.value(event, span)?;
                    return Ok(Some(Document {
                        root,
                        faults: std::mem::take(&mut self.faults),
                    }));
                }
                Event::Nothing | Event::StreamStart | Event::DocumentEnd => {}
                _ => return Err(self.fault(span, "unexpected content", "check the indentation")),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Fault> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let mark = *error.marker();
                let message = format!("invalid YAML: {}", error.info());
                Err(self.fault(
                    Span::empty(mark),
                    &message,
                    "correct the YAML at or above this line",
                ))
            }
            // Reading past the end: the stream has ended.
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn value(&mut self, event: Event<'a>, span: Span) -> Result<Node, Fault> {
        let at = self.position(span);
        self.values += 1;
        if self.values > MAX_VALUES {
            let message = format!("more than {MAX_VALUES} values");
            return Err(self.fault(span, &message, "split the document"));
        }
        if self.path.len() > MAX_DEPTH {
            let message = format!("nested deeper than {MAX_DEPTH}");
            return Err(self.fault(span, &message, "write it flatter"));
        }
        let (tree, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (Tree::Scalar(resolve(&text, style, tag.as_deref())), anchor)
            }
            Event::SequenceStart(anchor, _) => (self.list()?, anchor),
            Event::MappingStart(anchor, _) => (self.map()?, anchor),
            Event::Alias(id) => {
                let Some(node) = self.anchors.get(&id).cloned() else {
                    let message = "an alias of a value that holds it";
                    return Err(self.fault(span, message, "write the value out"));
                };
                let bytes = node.bytes();
                self.spend(bytes, span)?;
                return Ok(Node {
                    at,
                    tree: node.tree,
                });
            }
            _ => return Err(self.fault(span, "a value is missing", "complete the document")),
        };
        let node = Node { at, tree };
        if anchor != 0 {
            let bytes = node.bytes();
            self.spend(bytes, span)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn spend(&mut self, bytes: usize, span: Span) -> Result<(), Fault> {
        self.alias_bytes = self.alias_bytes.saturating_add(bytes);
        if self.alias_bytes > MAX_ALIAS_BYTES {
            let message = format!("aliases grow the document by more than {MAX_ALIAS_BYTES} bytes");
            return Err(self.fault(span, &message, "write the values out"));
        }
        Ok(())
    }

    fn list(&mut self) -> Result<Tree, Fault> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(Tree::List(items));
            }
            self.path.push(Step::Index(items.len()));
            items.push(self.value(event, span)?);
            self.path.pop();
        }
    }

    fn map(&mut self) -> Result<Tree, Fault> {
        let mut members: Vec<(String, Node)> = Vec::new();
        let mut seen: BTreeSet<String> = BTreeSet::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let (key, plain) = match event {
                Event::MappingEnd => break,
                Event::Scalar(text, style, _, _) => {
                    (text.into_owned(), style == ScalarStyle::Plain)
                }
                _ => {
                    let remedy = "use a text as key, or quote what stands in {{ }}";
                    return Err(self.fault(span, "a key is not a text", remedy));
                }
            };
            let at = self.position(span);
            self.path.push(Step::Key(key.clone()));
            let (event, value_span) = self.next()?;
            let value = self.value(event, value_span)?;
            if plain && key == "<<" {
                merged.push((value, span));
            } else if seen.insert(key.clone()) {
                members.push((
                    key,
                    Node {
                        at,
                        tree: value.tree,
                    },
                ));
            } else if self.faults.len() < MAX_FAULTS {
                let field = self.path_text();
                let fault = Fault {
                    at,
                    message: format!("duplicate field \"{field}\""),
                    field: Some(field),
                    remedy: "keep one of them".to_owned(),
                };
                self.faults.push(fault);
            }
            self.path.pop();
        }
        for (value, span) in merged {
            let sources = match value.tree {
                Tree::List(items) => items,
                tree => vec![Node { at: value.at, tree }],
            };
            for source in sources {
                let Tree::Map(more) = source.tree else {
                    let remedy = "give << a mapping or a list of mappings";
                    return Err(self.fault(span, "cannot merge what is not a mapping", remedy));
                };
                // What is written out wins over what is merged.
                members.extend(more.into_iter().filter(|(key, _)| seen.insert(key.clone())));
            }
        }
        Ok(Tree::Map(members))
    }

    fn position(&self, span: Span) -> Position {
        Position {
            line: self.lines_before.saturating_add(span.start.line().max(1)),
            column: span.start.col().saturating_add(1),
        }
    }

    fn fault(&self, span: Span, message: &str, remedy: &str) -> Fault {
        let field = self.path_text();
        Fault {
            at: self.position(span),
            field: Some(field).filter(|field| !field.is_empty()),
            message: message.to_owned(),
            remedy: remedy.to_owned(),
        }
    }

    fn path_text(&self) -> String {
        let mut text = String::new();
        for step in &self.path {
            match step {
                Step::Index(index) => text.push_str(&format!("[{index}]")),
                Step::Key(key) => {
                    if !text.is_empty() {
                        text.push('.');
                    }
                    text.push_str(key);
                }
            }
        }
        text
    }
}

fn resolve(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
    if style != ScalarStyle::Plain || is_text {
        return Value::String(text.to_owned());
    }
    scalar::resolve(text)
}

impl Node {
    /// The value as JSON. Members that are null are left out, as kubectl does.
    pub(super) fn to_json(&self) -> Value {
        match &self.tree {
            Tree::Scalar(value) => value.clone(),
            Tree::List(items) => items.iter().map(Self::to_json).collect(),
            Tree::Map(members) => Value::Object(
                members
                    .iter()
                    .filter(|(_, node)| !matches!(node.tree, Tree::Scalar(Value::Null)))
                    .map(|(key, node)| (key.clone(), node.to_json()))
                    .collect::<Map<String, Value>>(),
            ),
        }
    }

    /// The member of that name.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        let Tree::Map(members) = &self.tree else {
            return None;
        };
        members
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, node)| node)
    }

    /// The text, if it is one.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.tree {
            Tree::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// The place of a field like `spec.ports[0].port`, or of the nearest parent that there is.
    pub(super) fn find(&self, field: &str) -> Position {
        let rest = field.strip_prefix('.').unwrap_or(field);
        let next = match &self.tree {
            Tree::Scalar(_) => None,
            Tree::List(items) => rest.strip_prefix('[').and_then(|rest| {
                let (index, rest) = rest.split_once(']')?;
                Some((items.get(index.parse::<usize>().ok()?)?, rest))
            }),
            // Keys may hold dots themselves: the longest that fits is meant.
            Tree::Map(members) => members
                .iter()
                .filter_map(|(key, node)| Some((key, node, rest.strip_prefix(key.as_str())?)))
                .filter(|(key, _, rest)| {
                    !key.is_empty() && (rest.is_empty() || rest.starts_with(['.', '[']))
                })
                .max_by_key(|(key, _, _)| key.len())
                .map(|(_, node, rest)| (node, rest)),
        };
        match next {
            Some((node, rest)) if !rest.is_empty() => node.find(rest),
            Some((node, _)) => node.at,
            None => self.at,
        }
    }

    /// A rough size in memory.
    fn bytes(&self) -> usize {
        let inside = match &self.tree {
            Tree::Scalar(Value::String(text)) => text.len(),
            Tree::Scalar(_) => 0,
            Tree::List(items) => items.iter().map(Self::bytes).sum(),
            Tree::Map(members) => members
                .iter()
                .map(|(key, node)| key.len() + node.bytes())
                .sum(),
        };
        size_of::<Self>() + inside
    }
}
