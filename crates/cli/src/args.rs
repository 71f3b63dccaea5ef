//! Arguments that several commands share, and how their texts are understood.

use std::sync::Arc;

use clap::Args;
use sagitta_model::{Effort, FieldPath, Filter, Knobs, PayloadSelection};

use crate::failure::Failure;
use crate::filter;

/// Which points a command is about.
#[derive(Args, Clone, Debug, Default)]
pub struct FilterArg {
    /// Only points that pass this filter; its syntax is shown below
    #[arg(long, value_name = "FILTER")]
    pub filter: Option<String>,
}

impl FilterArg {
    /// Parses the filter; `None` if there is none.
    pub fn parse(&self) -> Result<Option<Arc<Filter>>, Failure> {
        let Some(text) = &self.filter else { return Ok(None) };
        match filter::parse(text) {
            Ok(filter) => Ok(Some(Arc::new(filter))),
            Err(error) => Err(Failure::filter("--filter", text, &error)),
        }
    }
}

/// How hard searches look.
#[derive(Args, Clone, Debug, Default)]
pub struct EffortArgs {
    /// Share of the true nearest neighbours to find on average, above 0 and at most 1 [default: 0.95]
    #[arg(long, value_name = "SHARE", value_parser = share, help_heading = "Effort")]
    pub recall: Option<f32>,

    /// Compare with every point that passes the filter: slow and free of error
    #[arg(long, conflicts_with_all = ["recall", "ef_search", "nprobe", "rerank"], help_heading = "Effort")]
    pub exact: bool,

    /// Candidates that the walk of a graph index keeps, at most 100,000 (a raw knob instead of --recall)
    #[arg(long, value_name = "N", conflicts_with = "recall", help_heading = "Effort")]
    pub ef_search: Option<usize>,

    /// Lists that a compact index reads, at most 100,000 (a raw knob instead of --recall)
    #[arg(long, value_name = "N", conflicts_with = "recall", help_heading = "Effort")]
    pub nprobe: Option<usize>,

    /// Candidates compared again at full precision, at most 100,000 (a raw knob instead of --recall)
    #[arg(long, value_name = "N", conflicts_with = "recall", help_heading = "Effort")]
    pub rerank: Option<usize>,
}

impl EffortArgs {
    /// The effort that the arguments ask for.
    pub fn effort(&self) -> Effort {
        let knobs = Knobs { ef_search: self.ef_search, nprobe: self.nprobe, rerank: self.rerank };
        match self {
            Self { exact: true, .. } => Effort::Exact,
            Self { recall: Some(target), .. } => Effort::Recall(*target),
            _ if knobs != Knobs::default() => Effort::Knobs(knobs),
            _ => Effort::default(),
        }
    }

    /// The effort in words, for a report.
    pub fn describe(&self) -> String {
        match self.effort() {
            Effort::Exact => "exact".to_owned(),
            Effort::Recall(target) => format!("recall target {target}"),
            Effort::Knobs(knobs) => {
                let named = [("ef_search", knobs.ef_search), ("nprobe", knobs.nprobe), ("rerank", knobs.rerank)];
                let set = named.iter().filter_map(|(name, knob)| knob.map(|knob| format!("{name} {knob}")));
                set.collect::<Vec<_>>().join(", ")
            }
        }
    }
}

/// Which payload fields a command shows: `all`, `none` or paths separated by commas.
pub fn payload_selection(text: &str) -> Result<PayloadSelection, String> {
    match text {
        "all" => Ok(PayloadSelection::All),
        "none" => Ok(PayloadSelection::None),
        paths => {
            let paths = paths.split(',').map(|path| path.trim().parse::<FieldPath>().map_err(|v| v.reason));
            paths.collect::<Result<_, _>>().map(PayloadSelection::Include)
        }
    }
}

/// A share above 0 and at most 1.
pub fn share(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("expected a number above 0 and at most 1, such as 0.95".to_owned()),
    }
}

/// A number with a fraction, perhaps negative.
pub fn number(text: &str) -> Result<f32, String> {
    let number = text.parse::<f32>().ok().filter(|number| number.is_finite());
    number.ok_or_else(|| "expected a number, such as 0.8".to_owned())
}

/// `NAME=VALUE`, as in `title=title_embedding`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// A positive number.
pub fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a whole number of at least 1".to_owned()),
        Ok(n) => Ok(n),
    }
}

/// A whole number that may be 0.
pub fn whole(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("expected a whole number from 0 to {}", u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effort_is_the_default_unless_something_is_asked_for() {
        assert_eq!(EffortArgs::default().effort(), Effort::default());
        let knobs = EffortArgs { ef_search: Some(64), rerank: Some(20), ..EffortArgs::default() };
        assert_eq!(knobs.effort(), Effort::Knobs(Knobs { ef_search: Some(64), nprobe: None, rerank: Some(20) }));
        assert_eq!(knobs.describe(), "ef_search 64, rerank 20");
        assert_eq!(EffortArgs { exact: true, ..EffortArgs::default() }.effort(), Effort::Exact);
    }

    #[test]
    fn selections_shares_and_pairs_are_checked() {
        assert_eq!(payload_selection("all"), Ok(PayloadSelection::All));
        let PayloadSelection::Include(paths) = payload_selection("a, b.c").expect("paths") else { panic!("include") };
        assert_eq!(paths.iter().map(FieldPath::as_str).collect::<Vec<_>>(), ["a", "b.c"]);
        assert!(payload_selection("a,,b").is_err());
        assert!(share("0").is_err() && share("1.01").is_err() && share("nan").is_err() && share("1").is_ok());
        assert!(number("-1.5e3") == Ok(-1500.0) && number("nan").is_err() && number("a").is_err());
        assert!(pair("a").is_err() && pair("=a").is_err());
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
    }
}
