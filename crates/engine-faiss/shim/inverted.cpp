// Inverted files of 4-bit product codes, trained, written, read and searched by FAISS.

#include "shim.hpp"

#include <memory>

#include <omp.h>

#include <faiss/Clustering.h>
#include <faiss/IndexFlat.h>
#include <faiss/IndexIVFPQFastScan.h>
#include <faiss/impl/FaissAssert.h>
#include <faiss/impl/IDSelector.h>
#include <faiss/impl/io.h>
#include <faiss/index_io.h>

// OpenBLAS keeps threads of its own; another BLAS does not have this.
extern "C" void openblas_set_num_threads(int) __attribute__((weak));

namespace {

constexpr size_t BITS = 4;

/// Vectors that each centre is trained on at most: more does not move it much.
constexpr int POINTS_PER_CENTRE = 128;

constexpr int ITERATIONS = 10;

void use_threads(int threads) {
    omp_set_num_threads(threads);
    if (openblas_set_num_threads) {
        openblas_set_num_threads(threads);
    }
}

struct CallbackWriter : faiss::IOWriter {
    sagitta_write_fn write;
    void* context;

    CallbackWriter(sagitta_write_fn write, void* context)
            : write(write), context(context) {}

    size_t operator()(const void* ptr, size_t size, size_t nitems) override {
        bool written = write(context, static_cast<const uint8_t*>(ptr), size * nitems);
        return written ? nitems : 0;
    }
};

struct MemoryReader : faiss::IOReader {
    const uint8_t* bytes;
    size_t left;

    MemoryReader(const uint8_t* bytes, size_t count) : bytes(bytes), left(count) {}

    size_t operator()(void* ptr, size_t size, size_t nitems) override {
        if (size == 0 || nitems == 0) {
            return nitems;
        }
        size_t whole = std::min(nitems, left / size);
        std::memcpy(ptr, bytes, whole * size);
        bytes += whole * size;
        left -= whole * size;
        return whole;
    }
};

} // namespace

struct sagitta_inverted {
    std::unique_ptr<faiss::IndexIVFPQFastScan> index;
};

char* sagitta_inverted_train(
        size_t dim,
        size_t lists,
        size_t codes,
        bool inner_product,
        size_t count,
        const float* rows,
        int threads,
        sagitta_inverted** out) {
    return sagitta::guarded([&] {
        use_threads(threads);
        auto metric = inner_product ? faiss::METRIC_INNER_PRODUCT : faiss::METRIC_L2;
        auto quantizer = std::make_unique<faiss::IndexFlat>(dim, metric);
        faiss::ClusteringParameters clustering;
        clustering.niter = ITERATIONS;
        clustering.max_points_per_centroid = POINTS_PER_CENTRE;
        // FAISS warns of few vectors on stderr; how many are enough is the caller's decision.
        clustering.min_points_per_centroid = 1;
        clustering.spherical = inner_product;
        faiss::Clustering centres(dim, lists, clustering);
        centres.train(count, rows, *quantizer);

        // A quantizer that has its centres is taken as it is; what is left to train are the codes. That is many small
        // steps, for which waking threads costs more than they do.
        use_threads(1);
        auto index = std::make_unique<faiss::IndexIVFPQFastScan>(
                quantizer.get(), dim, lists, codes, BITS, metric);
        quantizer.release();
        index->own_fields = true;
        index->pq.cp.min_points_per_centroid = 1;
        index->train(count, rows);
        *out = new sagitta_inverted{std::move(index)};
    });
}

char* sagitta_inverted_add(sagitta_inverted* index, size_t count, const float* rows, int threads) {
    return sagitta::guarded([&] {
        use_threads(threads);
        index->index->add(count, rows);
    });
}

char* sagitta_inverted_write(const sagitta_inverted* index, sagitta_write_fn write, void* context) {
    return sagitta::guarded([&] {
        CallbackWriter writer(write, context);
        faiss::write_index(index->index.get(), &writer);
    });
}

char* sagitta_inverted_read(const uint8_t* bytes, size_t count, sagitta_inverted** out) {
    return sagitta::guarded([&] {
        MemoryReader reader(bytes, count);
        std::unique_ptr<faiss::Index> read(faiss::read_index(&reader));
        auto* index = dynamic_cast<faiss::IndexIVFPQFastScan*>(read.get());
        FAISS_THROW_IF_NOT_MSG(index, "the file holds an index of another type");
        read.release();
        *out = new sagitta_inverted{std::unique_ptr<faiss::IndexIVFPQFastScan>(index)};
    });
}

void sagitta_inverted_shape(
        const sagitta_inverted* index, size_t* rows, size_t* dim, size_t* lists, size_t* code_bytes) {
    *rows = index->index->ntotal;
    *dim = index->index->d;
    *lists = index->index->nlist;
    *code_bytes = index->index->code_size;
}

char* sagitta_inverted_search(
        const sagitta_inverted* index,
        const float* query,
        size_t k,
        size_t probe,
        const uint8_t* allow,
        int64_t* rows,
        float* distances) {
    return sagitta::guarded([&] {
        omp_set_num_threads(1);
        faiss::IVFSearchParameters params;
        params.nprobe = probe;
        faiss::IDSelectorBitmap selector((index->index->ntotal + 7) / 8, allow);
        if (allow) {
            params.sel = &selector;
        }
        index->index->search(1, query, k, distances, rows, &params);
    });
}

void sagitta_inverted_free(sagitta_inverted* index) {
    delete index;
}
