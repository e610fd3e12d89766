//! From text to a document, within bounds, with the place and the field of what is wrong.

use std::path::Path;

use serde::de::IgnoredAny;
use serde_saphyr::{DuplicateKeyPolicy, Location, Options};

use super::{FileError, cut, schema::Document, shown};

/// Reads the text of a mesh file.
pub(super) fn document(text: &str, path: &Path) -> Result<Document, FileError> {
    if text.trim().is_empty() {
        return Err(FileError::Empty { path: shown(path) });
    }
    let mut field = String::new();
    let document = serde_saphyr::with_deserializer_from_str_with_options(text, options(), |yaml| {
        serde_path_to_error::deserialize(yaml).map_err(|error| {
            field = field_of(error.path());
            error.into_inner()
        })
    });
    document.map_err(|error| {
        if field.is_empty() && serde_saphyr::from_str_with_options::<Vec<IgnoredAny>>(text, options()).is_ok() {
            return FileError::OldForm { path: shown(path) };
        }
        let place = error.location().map(|l: Location| (l.line(), l.column()));
        let (line, column) = place.unwrap_or_default();
        let said = error.to_string();
        let reason = said.strip_suffix(&format!(" at line {line}, column {column}")).unwrap_or(&said);
        let reason = reason.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'");
        FileError::Syntax { path: shown(path), line, column, field: cut(field), reason: cut(reason) }
    })
}

/// What a mesh file has no use for is bounded, so that a small file cannot become a large one: aliases of aliases, depth.
fn options() -> Options {
    serde_saphyr::options! {
        with_snippet: false,
        duplicate_keys: DuplicateKeyPolicy::Error,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 100_000 },
        budget: serde_saphyr::budget! {
            max_events: 50_000_000,
            max_nodes: 25_000_000,
            max_documents: 1,
            max_aliases: 10_000,
            max_anchors: 1_000,
            max_recorded_anchor_events: 10_000,
            max_recorded_anchor_bytes: 1 << 20,
            max_depth: 32,
            enforce_alias_anchor_ratio: false,
        },
    }
}

/// Returns the path to a field followed by `: `, without the step that holds a resource's place; empty at the top.
fn field_of(path: &serde_path_to_error::Path) -> String {
    match path.to_string().as_str() {
        "." | "" => String::new(),
        path => format!("{}: ", path.replacen("].value", "]", 1).escape_debug()),
    }
}
