//! What a search asks for.

use std::sync::Arc;

use crate::{FieldPath, Filter, Schema, Violation, limits};

/// The recall that a search aims at when it names nothing else.
pub const DEFAULT_RECALL: f32 = 0.95;

/// One search of one collection.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchQuery {
    /// Which of the collection's vectors is compared.
    pub vector_name: String,
    /// What it is compared with; as long as that vector's dimension.
    pub vector: Vec<f32>,
    /// Hits wanted; with `group_by` the groups wanted.
    pub k: usize,
    /// Hits less similar than this are left out. A similarity: greater is nearer.
    pub min_similarity: Option<f32>,
    /// Which points may be hits.
    pub filter: Option<Arc<Filter>>,
    /// How hard to look.
    pub effort: Effort,
    /// Hits are grouped by this field.
    pub group_by: Option<GroupBy>,
}

/// How hard a search looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Effort {
    /// As hard as finding this share of the true nearest neighbours takes, on average. In (0, 1].
    Recall(f32),
    /// As hard as these raw settings say.
    Knobs(Knobs),
    /// Compare with every point that passes the filter.
    Exact,
}

impl Default for Effort {
    fn default() -> Self {
        Self::Recall(DEFAULT_RECALL)
    }
}

/// Raw settings of the indexes; what is absent is planned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Knobs {
    /// Candidates that a graph walk keeps.
    pub ef_search: Option<usize>,
    /// Inverted lists that a compact index reads.
    pub nprobe: Option<usize>,
    /// Candidates that are compared again at full precision.
    pub rerank: Option<usize>,
}

/// Grouping of hits: the best few of each value of a field.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupBy {
    /// A declared field; points without it are left out, points with several values are in several groups.
    pub field: FieldPath,
    /// Hits per group at most.
    pub size: usize,
}

/// Which parts of the found points are returned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    /// Of the payload.
    pub payload: PayloadSelection,
    /// Of the vectors.
    pub vectors: VectorSelection,
}

/// Which payload fields are returned.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum PayloadSelection {
    /// None.
    #[default]
    None,
    /// All.
    All,
    /// These and what is below them.
    Include(Vec<FieldPath>),
    /// All but these and what is below them.
    Exclude(Vec<FieldPath>),
}

/// Which vectors are returned.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum VectorSelection {
    /// None.
    #[default]
    None,
    /// All.
    All,
    /// Those with these names.
    Names(Vec<String>),
}

/// How fresh a read must be.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Consistency {
    /// Whatever a replica has applied.
    #[default]
    Eventual,
    /// At least what these tokens name.
    Session(Vec<VersionToken>),
    /// Everything acknowledged before the read began.
    Strong,
}

/// Where a write landed: a place in a shard's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionToken {
    /// The shard.
    pub shard: u64,
    /// Index of the write's entry in the shard's log.
    pub index: u64,
}

impl SearchQuery {
    /// Checks every bound and that vector, filter and grouping suit the schema.
    pub fn validate(&self, schema: &Schema) -> Result<(), Violation> {
        let (_, spec) = schema.vector(&self.vector_name)?;
        spec.check(&self.vector).map_err(|v| v.within("vector"))?;
        let in_range = |field: &str, n: usize, most: usize| match n {
            n if n == 0 || n > most => Err(Violation::new(field, format!("is {n}, expected 1 to {most}"))),
            _ => Ok(()),
        };
        in_range("k", self.k, limits::MAX_K)?;
        if let Some(filter) = &self.filter {
            filter.validate(schema).map_err(|v| v.within("filter"))?;
        }
        match self.effort {
            Effort::Recall(target) if !(target > 0.0 && target <= 1.0) => {
                return Err(Violation::new("recall_target", format!("is {target}, expected above 0 and at most 1")));
            }
            Effort::Knobs(knobs) => {
                for (name, knob) in [("ef_search", knobs.ef_search), ("nprobe", knobs.nprobe), ("rerank", knobs.rerank)]
                {
                    let checked = knob.map_or(Ok(()), |n| in_range(name, n, limits::MAX_BREADTH));
                    checked.map_err(|v| v.within("knobs"))?;
                }
            }
            Effort::Recall(_) | Effort::Exact => {}
        }
        if self.min_similarity.is_some_and(f32::is_nan) {
            return Err(Violation::new("score_threshold", "is not a number (NaN)"));
        }
        if let Some(group_by) = &self.group_by {
            schema.field(&group_by.field).map_err(|reason| Violation::new("group_by.field", reason))?;
            in_range("group_by.group_size", group_by.size, limits::MAX_K / self.k)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IndexPolicy, Metric, VectorSpec};

    #[test]
    fn each_bound_is_checked_and_named() {
        let mut schema = Schema::default();
        schema.vectors.insert("v".into(), VectorSpec { dim: 1, metric: Metric::L2, index: IndexPolicy::Auto });
        let good = SearchQuery {
            vector_name: String::new(),
            vector: vec![1.0],
            k: 10,
            min_similarity: None,
            filter: None,
            effort: Effort::default(),
            group_by: None,
        };
        assert_eq!(good.validate(&schema), Ok(()));
        let group = |size| Some(GroupBy { field: "f".parse().expect("path"), size });
        let knobs = |knobs| Effort::Knobs(knobs);
        let cases = [
            ("vector_name", SearchQuery { vector_name: "w".into(), ..good.clone() }),
            ("vector", SearchQuery { vector: vec![1.0, 2.0], ..good.clone() }),
            ("vector[0]", SearchQuery { vector: vec![f32::NAN], ..good.clone() }),
            ("k", SearchQuery { k: 0, ..good.clone() }),
            ("k", SearchQuery { k: limits::MAX_K + 1, ..good.clone() }),
            ("recall_target", SearchQuery { effort: Effort::Recall(0.0), ..good.clone() }),
            ("recall_target", SearchQuery { effort: Effort::Recall(f32::NAN), ..good.clone() }),
            (
                "knobs.nprobe",
                SearchQuery { effort: knobs(Knobs { nprobe: Some(0), ..Knobs::default() }), ..good.clone() },
            ),
            ("score_threshold", SearchQuery { min_similarity: Some(f32::NAN), ..good.clone() }),
            ("group_by.field", SearchQuery { group_by: group(1), ..good.clone() }),
        ];
        for (field, query) in cases {
            assert_eq!(query.validate(&schema).expect_err(field).field, field);
        }
        schema.fields.insert("f".parse().expect("path"), crate::FieldType::Keyword);
        let grouped = SearchQuery { k: limits::MAX_K, group_by: group(2), ..good };
        assert_eq!(grouped.validate(&schema).expect_err("too many").field, "group_by.group_size");
    }
}
