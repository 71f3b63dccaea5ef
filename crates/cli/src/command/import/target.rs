//! The collection that an import goes into.

use std::collections::BTreeMap;
use std::path::Path;

use sagitta_client::View;
use sagitta_model::{CollectionInfo, CollectionName, Schema};

use super::infer::{Inferred, infer};
use super::source::{Checker, Shape};
use crate::command::collection::{DEFAULT_VECTOR, ShapeArgs, one_line};
use crate::data::{Row, RowReader, Summary};
use crate::failure::{Exit, Failure};
use crate::session::Session;

/// Rows that are looked at before a collection is created: for the types of fields, and whether it would take them.
pub(super) const SAMPLE_ROWS: usize = 1_000;

/// How a collection is created if there is none.
pub(super) struct Creation<'a> {
    pub(super) shape: &'a ShapeArgs,
    /// Whether fields that are not declared by hand are declared by what the first rows hold.
    pub(super) infer: bool,
    /// As of the import: [`Shape::id_offset`] and [`Shape::end`].
    pub(super) id_offset: u64,
    pub(super) end: u64,
}

/// The existing collection, or a new one that suits the file.
pub(super) async fn find_or_create(
    session: &Session,
    name: &CollectionName,
    rows: &mut dyn RowReader,
    creation: Option<&Creation<'_>>,
) -> Result<CollectionInfo, Failure> {
    match session.collection(name, View::Basic).await {
        Err(failure) if failure.exit == Exit::NotFound => match creation {
            Some(creation) => create(session, name, rows, creation).await,
            None => {
                Err(failure.hint(format!("create it first with sagitta collection create {name}, or add --create")))
            }
        },
        other => {
            let info = other?;
            check(rows.path(), rows.summary(), &info)?;
            Ok(info)
        }
    }
}

async fn create(
    session: &Session,
    name: &CollectionName,
    rows: &mut dyn RowReader,
    creation: &Creation<'_>,
) -> Result<CollectionInfo, Failure> {
    let (schema, inferred) = design(rows, creation)
        .map_err(|failure| Failure { message: format!("{} (`{name}` was not created)", failure.message), ..failure })?;
    let info = session.client.create_collection(name.clone(), schema).await;
    let info = info.map_err(|error| session.failed(error))?;
    eprintln!("created {}", one_line(&info));
    if !info.schema.fields.is_empty() {
        let fields: Vec<_> = info.schema.fields.iter().map(|(path, t)| format!("{path} {t}")).collect();
        eprintln!("  filterable: {}", fields.join(", "));
    }
    if !inferred.left_out.is_empty() {
        let left_out: Vec<_> = inferred.left_out.iter().map(|(name, reason)| format!("{name} ({reason})")).collect();
        eprintln!("  stored only: {}", left_out.join(", "));
    }
    Ok(info)
}

/// The schema that suits a file: its vectors, and fields by hand or by its first rows. Refuses a file of whose first rows
/// a collection of that schema would not take one, lest nothing be left of an import but an empty collection.
pub(super) fn design(rows: &mut dyn RowReader, creation: &Creation<'_>) -> Result<(Schema, Inferred), Failure> {
    let summary = rows.summary().clone();
    let shape = ShapeArgs { metric: creation.shape.metric.or(summary.metric), ..creation.shape.clone() };
    if summary.vectors.is_empty() {
        let message = format!("{}: there are no rows to show how many dimensions vectors have", rows.path().display());
        let hint = "create the collection with sagitta collection create NAME --dim N";
        return Err(Failure::new(Exit::Data, message).hint(hint));
    }
    let first = rows.position();
    let sample = sample(rows, creation.end)?;
    let mut inferred = Inferred::default();
    if creation.infer {
        inferred = infer(sample.iter().map(|row| &row.payload));
    }
    let mut fields = std::mem::take(&mut inferred.fields);
    for (path, field_type) in shape.declared()? {
        inferred.left_out.remove(path.as_str());
        fields.insert(path, field_type);
    }
    let vectors: BTreeMap<_, _> = summary
        .vectors
        .iter()
        .map(|(name, column)| {
            let name = if name.is_empty() { DEFAULT_VECTOR } else { name };
            (name.to_owned(), shape.spec(column.dimension))
        })
        .collect();
    let schema = Schema { vectors, fields };
    schema.validate().map_err(|violation| Failure::usage(violation.to_string()))?;
    let shape = Shape { schema, id_offset: creation.id_offset, end: creation.end };
    let mut checker = Checker::new(shape.clone());
    for (row, at) in sample.into_iter().zip(first..) {
        checker.point(row, at, rows.path())?;
    }
    Ok((shape.schema, inferred))
}

fn sample(rows: &mut dyn RowReader, end: u64) -> Result<Vec<Row>, Failure> {
    let back = rows.position();
    let sample = rows.read(end.saturating_sub(back).min(SAMPLE_ROWS as u64) as usize)?;
    rows.seek(back)?;
    Ok(sample)
}

/// Checks that the file's vectors are those of the collection.
fn check(path: &Path, summary: &Summary, info: &CollectionInfo) -> Result<(), Failure> {
    if summary.vectors.is_empty() {
        // There are no rows, and what they would have been is not known.
        return Ok(());
    }
    let refuse = |message: String, hint: String| {
        Err(Failure::new(Exit::Data, format!("{}: {message}", path.display())).hint(hint))
    };
    let mut given = Vec::new();
    for (name, column) in &summary.vectors {
        let (name, spec) = match info.schema.vector(name) {
            Ok(found) => found,
            Err(violation) => {
                let hint =
                    "name the file's vector with --vector-name, or choose columns with --vector-column NAME=COLUMN";
                return refuse(format!("vectors do not suit `{}`: {}", info.name, violation.reason), hint.to_owned());
            }
        };
        if spec.dim != column.dimension {
            let message = format!("vectors have {} dimensions, `{}` expects {}", column.dimension, info.name, spec.dim);
            let hint = format!("is it the right file? sagitta collection describe {} shows the collection", info.name);
            return refuse(message, hint);
        }
        given.push(name);
    }
    match info.schema.vectors.keys().find(|name| !given.contains(&name.as_str())) {
        Some(missing) => {
            let message = format!("the vector `{missing}` of `{}` is not in the file", info.name);
            refuse(message, "every point has each vector of its collection: import a file with all of them".to_owned())
        }
        None => Ok(()),
    }
}

/// Refuses what was asked of a collection by hand if it exists already and is otherwise.
pub(super) fn as_asked(info: &CollectionInfo, shape: &ShapeArgs) -> Result<(), Failure> {
    let otherwise = |argument: &str, what: &str, existing: &str| {
        let message = format!("{argument}: `{what}` is {existing} in `{}`, which exists already", info.name);
        Err(Failure::usage(message).hint("vectors and fields are declared when a collection is created"))
    };
    for (name, spec) in &info.schema.vectors {
        if shape.metric.is_some_and(|metric| metric != spec.metric) {
            return otherwise("--metric", name, &spec.metric.to_string());
        }
        if shape.index.is_some_and(|index| index != spec.index) {
            return otherwise("--index", name, &spec.index.to_string());
        }
    }
    for (path, field_type) in &shape.declared()? {
        match info.schema.fields.get(path) {
            Some(existing) if existing == field_type => {}
            Some(existing) => return otherwise("--field", path.as_str(), &existing.to_string()),
            None => return otherwise("--field", path.as_str(), "not declared"),
        }
    }
    Ok(())
}
