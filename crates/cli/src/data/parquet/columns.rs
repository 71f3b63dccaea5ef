//! Which columns of a Parquet file are vectors, ids and payload.

use std::path::Path;
use std::sync::Arc;

use parquet::basic::{ConvertedType, LogicalType, Type as Physical};
use parquet::record::{Field, Row as Record};
use parquet::schema::types::{ColumnDescriptor, SchemaDescPtr, SchemaDescriptor, Type};
use sagitta_model::PointId;
use sagitta_model::value::Value;

use super::super::error::{BadValue, DataError, quoted};
use super::super::json::{bad_id, parse_object};
use super::super::{Content, ReadOptions, Row};
use super::types::check_type;
use super::value;

/// The roles of a file's columns.
pub(super) struct Columns {
    pub(super) vectors: Vec<VectorLeaf>,
    /// Index of the ids among the columns of `others`.
    pub(super) id: Option<usize>,
    /// Ids and payload columns; `None` if there are none.
    pub(super) others: Option<SchemaDescPtr>,
}

/// The column of a list's numbers.
#[derive(Clone, Debug)]
pub(super) struct VectorLeaf {
    /// Name of the vector.
    pub(super) name: String,
    /// Name of the column.
    pub(super) column: String,
    /// Position among the file's leaf columns.
    pub(super) index: usize,
    /// Definition level of a number that is there.
    pub(super) present: i16,
    /// Whether numbers may be null.
    pub(super) nullable: bool,
    /// Whether the numbers are integers.
    pub(super) integer: bool,
}

/// A column that holds a payload as one JSON object.
const PAYLOAD_COLUMN: &str = "payload";

impl Columns {
    pub(super) fn find(path: &Path, schema: SchemaDescPtr, options: &ReadOptions) -> Result<Self, DataError> {
        let vectors = match options.content {
            Content::Points => find_vectors(path, &schema, options)?,
            Content::Payloads => Vec::new(),
        };
        let is_vector = |name: &str| vectors.iter().any(|leaf| leaf.column == name);
        let ignored = |name: &str| options.ignored_columns.iter().any(|ignored| ignored == name);
        let fields = schema.root_schema().get_fields().iter();
        let others: Vec<_> = fields.filter(|f| !is_vector(f.name()) && !ignored(f.name())).cloned().collect();
        for field in &others {
            check_type(field.name(), field).map_err(|found| {
                let fix = "leave the column out with --ignore-column, or write it in another type";
                DataError::file(path, format!("column `{}`", field.name()), "a JSON-like type", found, fix)
            })?;
        }
        let id = options.id_column.as_ref().and_then(|id| others.iter().position(|field| field.name() == id));
        if let (None, Some(missing), true) = (id, &options.id_column, options.id_required) {
            let names: Vec<_> = others.iter().map(|field| field.name()).collect();
            let fix = "name one of them with --id-column, or number the rows with --row-ids";
            return Err(DataError::file(path, "columns", format!("`{missing}`"), names.join(", "), fix));
        }
        let others = if others.is_empty() {
            None
        } else {
            let root = Type::group_type_builder(schema.root_schema().name()).with_fields(others).build();
            let root = root.map_err(|error| super::damaged(path, &error.to_string()))?;
            Some(Arc::new(SchemaDescriptor::new(Arc::new(root))))
        };
        Ok(Self { vectors, id, others })
    }

    /// Puts a record's ids and payload into its row.
    pub(super) fn fill(&self, row: &mut Row, record: Record) -> Result<(), BadValue> {
        let Some(schema) = &self.others else { return Ok(()) };
        let columns = schema.root_schema().get_fields().iter().zip(record.into_columns()).enumerate();
        for (at, (column_type, (name, field))) in columns {
            if self.id == Some(at) {
                row.id = Some(id(&name, field, column_type)?);
            } else if name == PAYLOAD_COLUMN && is_json(column_type) {
                if let Field::Str(text) = field {
                    let fields = parse_object(text.as_bytes(), &name)?;
                    if let Some(twice) = fields.keys().find(|key| row.payload.contains_key(*key)) {
                        let fix = "leave one of the two out with --ignore-column";
                        return Err(BadValue::new(twice, "each field once", "it in `payload` and as a column", fix));
                    }
                    row.payload.extend(fields);
                }
            } else if row.payload.insert(name.clone(), value::convert(&name, field, column_type)?).is_some() {
                let fix = "leave one of the two out with --ignore-column";
                return Err(BadValue::new(name, "each field once", "it in `payload` and as a column", fix));
            }
        }
        Ok(())
    }
}

fn is_json(column_type: &Type) -> bool {
    let info = column_type.get_basic_info();
    info.converted_type() == ConvertedType::JSON || info.logical_type_ref() == Some(&LogicalType::Json)
}

fn id(column: &str, field: Field, column_type: &Type) -> Result<PointId, BadValue> {
    // Ids have all 64 bits, integers of a payload only 63.
    if let Field::ULong(n) = field {
        return Ok(PointId::Num(n));
    }
    match value::convert(column, field, column_type)? {
        Value::Int(n) if n >= 0 => Ok(PointId::Num(n as u64)),
        Value::String(text) => text.parse().map_err(|_| bad_id(column, quoted(&text))),
        Value::Int(n) => Err(bad_id(column, n.to_string())),
        other => Err(bad_id(column, other.type_name().to_owned())),
    }
}

fn find_vectors(path: &Path, schema: &SchemaDescriptor, options: &ReadOptions) -> Result<Vec<VectorLeaf>, DataError> {
    let lists: Vec<(usize, String, bool)> =
        (0..schema.num_columns()).filter_map(|at| list_of_numbers(schema, at)).collect();
    let names = || lists.iter().map(|(_, name, _)| name.as_str()).collect::<Vec<_>>();
    let leaf = |name: &str, column: &str| {
        let found = lists.iter().find(|(_, list, _)| list == column);
        let Some((index, column, float)) = found else {
            let fix = "name a column of lists of numbers, one per row, with --vector-column";
            let found = if names().is_empty() { "no such column".to_owned() } else { names().join(", ") };
            return Err(DataError::file(path, "lists of numbers", format!("`{column}`"), found, fix));
        };
        let descriptor = schema.column(*index);
        Ok(VectorLeaf {
            name: name.to_owned(),
            column: column.clone(),
            index: *index,
            present: descriptor.max_def_level(),
            nullable: descriptor.self_type().is_optional(),
            integer: !float,
        })
    };
    if !options.vector_columns.is_empty() {
        return options.vector_columns.iter().map(|(name, column)| leaf(name, column)).collect();
    }
    let usual = ["vector", "embedding"].into_iter().find(|usual| names().contains(usual));
    let floats: Vec<_> = lists.iter().filter(|(_, _, float)| *float).map(|(_, name, _)| name.as_str()).collect();
    match (usual, &floats[..]) {
        (Some(column), _) | (None, &[column]) => Ok(vec![leaf(&options.vector_name, column)?]),
        (None, several) => {
            let found = if several.is_empty() { "no list of floats".to_owned() } else { several.join(", ") };
            let fix = "name the column that holds the vectors with --vector-column";
            Err(DataError::file(path, "columns", "`vector`, `embedding` or one list of floats", found, fix))
        }
    }
}

/// If a leaf column is the numbers of a top-level list: its index, the list's name and whether they are floats.
fn list_of_numbers(schema: &SchemaDescriptor, index: usize) -> Option<(usize, String, bool)> {
    let leaf: &ColumnDescriptor = &schema.column(index);
    let root = schema.get_column_root(index);
    let alone = (0..schema.num_columns()).filter(|at| std::ptr::eq(schema.get_column_root(*at), root)).count() == 1;
    let float = match leaf.physical_type() {
        Physical::FLOAT | Physical::DOUBLE => true,
        Physical::FIXED_LEN_BYTE_ARRAY if leaf.logical_type_ref() == Some(&LogicalType::Float16) => true,
        Physical::INT32 | Physical::INT64 => false,
        _ => return None,
    };
    (alone && leaf.max_rep_level() == 1).then(|| (index, root.name().to_owned(), float))
}
