//! Cutting a file into documents, before YAML is read, so that a broken one leaves the rest.
//!
//! kubectl does the same: a line that begins with `---` parts two documents whatever stands
//! around it.

/// A piece of a file with at least one document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk<'a> {
    pub(super) text: &'a str,
    /// Lines of the file before it.
    pub(super) lines_before: usize,
}

pub(super) fn split(text: &str) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    let (mut start, mut start_line) = (0, 0);
    let mut offset = 0;
    let mut content = Content::Nothing;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        // Directives belong to the document after the separator.
        if is_separator(line) && content != Content::Directives {
            push(&mut chunks, text, start..offset, start_line, content);
            (start, start_line) = (offset, number);
            content = Content::Nothing;
        }
        content = content.after(line);
        offset += line.len();
    }
    push(&mut chunks, text, start..text.len(), start_line, content);
    chunks
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    /// Blank lines, comments and separators.
    Nothing,
    /// And lines that begin with a percent sign.
    Directives,
    Something,
}

impl Content {
    fn after(self, line: &str) -> Self {
        let rest = line
            .strip_prefix("---")
            .filter(|_| is_separator(line))
            .unwrap_or(line)
            .trim();
        match self {
            Self::Something => Self::Something,
            _ if rest.is_empty() || rest.starts_with('#') => self,
            Self::Nothing | Self::Directives if line.starts_with('%') => Self::Directives,
            _ => Self::Something,
        }
    }
}

fn is_separator(line: &str) -> bool {
    line.strip_prefix("---")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn push<'a>(
    chunks: &mut Vec<Chunk<'a>>,
    text: &'a str,
    range: std::ops::Range<usize>,
    lines_before: usize,
    content: Content,
) {
    if content != Content::Nothing
        && let Some(text) = text.get(range)
    {
        chunks.push(Chunk { text, lines_before });
    }
}
