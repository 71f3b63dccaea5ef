//! How a search was run, to and from its messages.

use sagitta_model::{Explanation, Plan, SegmentIndex, SegmentPlan, Violation};

use crate::common::{each, unknown_enum};
use crate::v1;

pub(crate) fn explanation_from(proto: v1::SearchExplanation) -> Result<Explanation, Violation> {
    let stages = proto.stages.unwrap_or_default();
    Ok(Explanation {
        total_us: proto.total_us,
        queue_us: stages.queue_us,
        plan_us: stages.plan_us,
        search_us: stages.search_us,
        rerank_us: stages.rerank_us,
        merge_us: stages.merge_us,
        hydrate_us: stages.hydrate_us,
        segments: each("segments", proto.segments, |segment| segment_from(&segment))?,
    })
}

pub(crate) fn explanation_into(explanation: &Explanation) -> v1::SearchExplanation {
    v1::SearchExplanation {
        total_us: explanation.total_us,
        stages: Some(v1::StageTimings {
            queue_us: explanation.queue_us,
            plan_us: explanation.plan_us,
            search_us: explanation.search_us,
            rerank_us: explanation.rerank_us,
            merge_us: explanation.merge_us,
            hydrate_us: explanation.hydrate_us,
        }),
        segments: explanation.segments.iter().map(segment_into).collect(),
    }
}

fn segment_from(proto: &v1::SegmentPlan) -> Result<SegmentPlan, Violation> {
    let index = match v1::SegmentIndex::try_from(proto.index) {
        Ok(v1::SegmentIndex::Growing) => SegmentIndex::Growing,
        Ok(v1::SegmentIndex::Flat) => SegmentIndex::Flat,
        Ok(v1::SegmentIndex::Graph) => SegmentIndex::Graph,
        Ok(v1::SegmentIndex::Compact) => SegmentIndex::Compact,
        Ok(v1::SegmentIndex::Unspecified) | Err(_) => return Err(unknown_enum("index", proto.index)),
    };
    let plan = match v1::SearchPlan::try_from(proto.plan) {
        Ok(v1::SearchPlan::Skipped) => Plan::Skip,
        Ok(v1::SearchPlan::Scan) => Plan::Scan,
        Ok(v1::SearchPlan::Index) => Plan::Index,
        Ok(v1::SearchPlan::IndexThenCheck) => Plan::IndexThenCheck,
        Ok(v1::SearchPlan::Unspecified) | Err(_) => return Err(unknown_enum("plan", proto.plan)),
    };
    Ok(SegmentPlan {
        shard: proto.shard,
        segment: proto.segment,
        index,
        plan,
        rows: proto.rows,
        selectivity: proto.estimated_selectivity,
        breadth: proto.breadth,
        compared: proto.compared,
        reranked: proto.reranked,
        duration_us: proto.duration_us,
    })
}

fn segment_into(segment: &SegmentPlan) -> v1::SegmentPlan {
    let index = match segment.index {
        SegmentIndex::Growing => v1::SegmentIndex::Growing,
        SegmentIndex::Flat => v1::SegmentIndex::Flat,
        SegmentIndex::Graph => v1::SegmentIndex::Graph,
        SegmentIndex::Compact => v1::SegmentIndex::Compact,
    };
    let plan = match segment.plan {
        Plan::Skip => v1::SearchPlan::Skipped,
        Plan::Scan => v1::SearchPlan::Scan,
        Plan::Index => v1::SearchPlan::Index,
        Plan::IndexThenCheck => v1::SearchPlan::IndexThenCheck,
    };
    v1::SegmentPlan {
        shard: segment.shard,
        segment: segment.segment,
        index: index.into(),
        plan: plan.into(),
        rows: segment.rows,
        estimated_selectivity: segment.selectivity,
        breadth: segment.breadth,
        compared: segment.compared,
        reranked: segment.reranked,
        duration_us: segment.duration_us,
    }
}
