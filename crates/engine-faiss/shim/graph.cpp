// HNSW graphs over the caller's codes: FAISS decides the links, the caller's kernel measures the distances.

#include "shim.hpp"

#include <omp.h>

#include <faiss/IndexHNSW.h>
#include <faiss/impl/DistanceComputer.h>
#include <faiss/impl/FaissAssert.h>

namespace {

using faiss::idx_t;

constexpr size_t CHUNK = 64;

/// Distances between rows of the codes, by their codes.
struct CodeDistances : faiss::DistanceComputer {
    const sagitta_codes& codes;
    const float* base;
    size_t query = 0;

    CodeDistances(const sagitta_codes& codes, const float* base)
            : codes(codes), base(base) {}

    /// A query is the address of its row in an array of one float per row, of which only the place matters.
    void set_query(const float* x) override {
        query = x - base;
    }

    float operator()(idx_t i) override {
        return symmetric_dis(query, i);
    }

    float symmetric_dis(idx_t i, idx_t j) override {
        uint32_t row = j;
        float distance;
        distances(i, &row, 1, &distance);
        return distance;
    }

    void distances_batch_4(
            const idx_t i0,
            const idx_t i1,
            const idx_t i2,
            const idx_t i3,
            float& d0,
            float& d1,
            float& d2,
            float& d3) override {
        uint32_t rows[4] = {uint32_t(i0), uint32_t(i1), uint32_t(i2), uint32_t(i3)};
        float out[4];
        distances(query, rows, 4, out);
        d0 = out[0];
        d1 = out[1];
        d2 = out[2];
        d3 = out[3];
    }

    void distances(size_t from, const uint32_t* rows, size_t count, float* out) const {
        int32_t dots[4];
        codes.dots(
                codes.queries + from * codes.query_stride,
                codes.query_stride / CHUNK,
                codes.codes,
                codes.stride,
                rows,
                count,
                dots);
        for (size_t i = 0; i < count; i++) {
            float correction = 0;
            if (codes.correction_at != 0) {
                const uint8_t* record = codes.codes + rows[i] * codes.stride;
                std::memcpy(&correction, record + codes.correction_at, sizeof(correction));
            }
            out[i] = codes.offset[from] - codes.scale[from] * dots[i] - correction;
        }
    }
};

/// Stands for the vectors: FAISS asks it for distances only. One "dimension", so that a row's address tells its number.
struct CodeStorage : faiss::Index {
    sagitta_codes codes;
    /// Never read: addresses within it stand for rows.
    std::vector<float> addresses;

    explicit CodeStorage(const sagitta_codes& codes)
            : faiss::Index(1, faiss::METRIC_L2), codes(codes), addresses(codes.rows) {}

    void add(idx_t n, const float*) override {
        ntotal += n;
    }

    void reset() override {
        ntotal = 0;
    }

    void search(idx_t, const float*, idx_t, float*, idx_t*, const faiss::SearchParameters*)
            const override {
        FAISS_THROW_MSG("codes are searched through a graph");
    }

    faiss::DistanceComputer* get_distance_computer() const override {
        return new CodeDistances(codes, addresses.data());
    }
};

} // namespace

struct sagitta_graph {
    CodeStorage storage;
    faiss::IndexHNSW index;

    sagitta_graph(const sagitta_codes& codes, int links)
            : storage(codes), index(&storage, links) {}
};

char* sagitta_graph_new(
        const sagitta_codes* codes, int links, int breadth, sagitta_graph** out) {
    return sagitta::guarded([&] {
        *out = new sagitta_graph(*codes, links);
        (*out)->index.hnsw.efConstruction = breadth;
    });
}

char* sagitta_graph_add(sagitta_graph* graph, size_t count, int threads) {
    return sagitta::guarded([&] {
        FAISS_THROW_IF_NOT(graph->storage.ntotal + count <= graph->storage.codes.rows);
        omp_set_num_threads(threads);
        graph->index.add(count, graph->storage.addresses.data() + graph->storage.ntotal);
    });
}

char* sagitta_graph_search(
        const sagitta_graph* graph,
        size_t row,
        int breadth,
        size_t k,
        float* distances,
        int64_t* rows,
        size_t* compared) {
    return sagitta::guarded([&] {
        FAISS_THROW_IF_NOT(row < graph->storage.codes.rows);
        omp_set_num_threads(1);
        faiss::SearchParametersHNSW params;
        params.efSearch = breadth;
        faiss::hnsw_stats.reset();
        graph->index.search(1, graph->storage.addresses.data() + row, k, distances, rows, &params);
        *compared = faiss::hnsw_stats.ndis;
    });
}

void sagitta_graph_view_of(const sagitta_graph* graph, sagitta_graph_view* out) {
    const faiss::HNSW& hnsw = graph->index.hnsw;
    *out = {hnsw.levels.size(),
            hnsw.max_level,
            hnsw.entry_point,
            hnsw.levels.data(),
            hnsw.offsets.data(),
            hnsw.neighbors.data(),
            hnsw.cum_nneighbor_per_level.data()};
}

void sagitta_graph_free(sagitta_graph* graph) {
    delete graph;
}

void sagitta_message_free(char* message) {
    delete[] message;
}
