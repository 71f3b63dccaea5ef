// What FAISS's own C API lacks, as a C API: graphs built over the caller's codes, and inverted files whose bytes go where
// the caller wants them.
//
// Every function that can fail returns null (or a null handle) on success and a message on failure, to be freed by
// sagitta_message_free. No exception leaves.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>

extern "C" {

/// Compares a query code with the codes of `count` rows; chunks of 64 bytes.
typedef void (*sagitta_dots_fn)(
        const int8_t* query,
        size_t chunks,
        const uint8_t* codes,
        size_t stride,
        const uint32_t* rows,
        size_t count,
        int32_t* out);

/// The rows that a graph is built of, which stay the caller's. The distance of row i to row j is
/// offset[i] - scale[i] * dot(query code of i, code of j) - correction of j.
struct sagitta_codes {
    size_t rows;
    const uint8_t* codes;
    size_t stride;
    /// Where in a record its correction is; 0 if there is none.
    size_t correction_at;
    const int8_t* queries;
    size_t query_stride;
    const float* offset;
    const float* scale;
    sagitta_dots_fn dots;
};

/// A finished graph, as FAISS keeps it.
struct sagitta_graph_view {
    size_t rows;
    int32_t max_level;
    int32_t entry_point;
    /// Per row: 1 + the highest level that it is in.
    const int32_t* levels;
    /// Per row: where its links begin in neighbors, those of level 0 first.
    const size_t* offsets;
    /// Ended by -1 where a level's list is not full.
    const int32_t* neighbors;
    /// Per level: links per row of all levels below.
    const int32_t* links_below;
};

struct sagitta_graph;
struct sagitta_inverted;

void sagitta_message_free(char* message);

char* sagitta_graph_new(
        const sagitta_codes* codes, int links, int breadth, sagitta_graph** out);
/// Adds the next `count` rows.
char* sagitta_graph_add(sagitta_graph* graph, size_t count, int threads);
/// FAISS's own search, for comparison: the neighbours of a row of the codes, which need not be in the graph.
char* sagitta_graph_search(
        const sagitta_graph* graph, size_t row, int breadth, size_t k, float* distances, int64_t* rows, size_t* compared);
void sagitta_graph_view_of(const sagitta_graph* graph, sagitta_graph_view* out);
void sagitta_graph_free(sagitta_graph* graph);

/// Receives bytes in order.
typedef bool (*sagitta_write_fn)(void* context, const uint8_t* bytes, size_t count);

/// An inverted file of `lists` cells with `codes` 4-bit codes per row, trained on `count` rows of `dim` floats.
char* sagitta_inverted_train(
        size_t dim,
        size_t lists,
        size_t codes,
        bool inner_product,
        size_t count,
        const float* rows,
        int threads,
        sagitta_inverted** out);
/// Adds rows; they are numbered on.
char* sagitta_inverted_add(sagitta_inverted* index, size_t count, const float* rows, int threads);
char* sagitta_inverted_write(const sagitta_inverted* index, sagitta_write_fn write, void* context);
/// Reads what was written. The bytes must be known to be intact: FAISS trusts them.
char* sagitta_inverted_read(const uint8_t* bytes, size_t count, sagitta_inverted** out);
/// How many rows, dimensions, lists and bytes per row's code.
void sagitta_inverted_shape(
        const sagitta_inverted* index, size_t* rows, size_t* dim, size_t* lists, size_t* code_bytes);
/// The nearest `k` by code; absent ones are -1. `allow` is a bit per row, or null.
char* sagitta_inverted_search(
        const sagitta_inverted* index,
        const float* query,
        size_t k,
        size_t probe,
        const uint8_t* allow,
        int64_t* rows,
        float* distances);
void sagitta_inverted_free(sagitta_inverted* index);
}

namespace sagitta {

inline char* message(const char* what) {
    char* copy = new char[std::strlen(what) + 1];
    std::strcpy(copy, what);
    return copy;
}

/// Runs a function; what it throws becomes a message.
template <class F>
char* guarded(F&& f) noexcept {
    try {
        f();
        return nullptr;
    } catch (const std::exception& e) {
        return message(e.what());
    } catch (...) {
        return message("an exception of an unknown type");
    }
}

} // namespace sagitta
