// SPDX-License-Identifier: Apache-2.0
// Rows of tables in integers, on a GPU or on the emulator with TRINE_SIMT.
#include "gpu/buffers.h"
#include "gpu/quantised_weights.h"
#include "kernels/rows.h"
#include "ref/ref.h"

namespace trine::test {

TEST(embedding_of_integers) {
  const std::vector<int32_t> ids = {3, 0, 10, 3, 7};
  for (const DType form : kForms) {
    for (const int64_t cols : {9, 24, 70}) {
      for (const DType out : kGpuTypes) {
        Random random{uint64_t(cols)};
        QuantisedWeights table(form, 11, cols, random);
        DeviceArray<uint8_t> on_device(table.packed);
        DeviceArray<int32_t> ids_on_device(ids);
        const auto rows = static_cast<int64_t>(ids.size());
        Matrix<float> want(rows, cols), got(rows, cols);
        trine::EmbeddingArgs ref = {};
        ref.ids[0] = ids.data(), ref.tables[0] = table.rows.data(), ref.dtypes[0] = form;
        ref.count = 1, ref.rows = rows, ref.cols = cols;
        ref.y = want.data(), ref.ldy = want.ld();
        ref::embedding(ref);
        round_to(out, want);
        DeviceMatrix y(got, out, 2);
        cuda::EmbeddingArgs args = {};
        args.ids[0] = ids_on_device.data(), args.tables[0] = on_device.data();
        args.dtypes[0] = form, args.count = 1, args.table_rows = 11;
        args.y = y.view(), args.rows = rows, args.cols = cols;
        CHECK_CUDA(cuda::embedding(args, nullptr));
        wait_for_device();
        y.get(got);
        // One rounding of an exact product, or sum.
        CHECK(identical(got, want));
      }
    }
  }
}

}  // namespace trine::test
