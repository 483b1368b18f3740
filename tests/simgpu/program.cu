// A program as nvcc 13 compiles it: known numbers of kernels, copies and fills, and right results.
// Each step: copy in, fill, three kernels (one through a graph), copy out, synchronize.
#include <cstdio>
#include <cstdlib>

__device__ int seed;

__global__ void scale(int n, float factor, const float *from, float *to) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) to[i] = factor * from[i];
}

template <typename T>
__global__ void shift(T *values, T by, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) values[i] += by;
}

static void check(cudaError_t error, const char *what) {
  if (error == cudaSuccess) return;
  fprintf(stderr, "%s: %s\n", what, cudaGetErrorName(error));
  exit(1);
}
#define CHECK(call) check(call, #call)

enum { COUNT = 1 << 16 };

static cudaGraphExec_t capture(cudaStream_t stream, float *values) {
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  shift<float><<<COUNT / 256, 256, 0, stream>>>(values, 1.f, COUNT);
  CHECK(cudaStreamEndCapture(stream, &graph));
  CHECK(cudaGraphInstantiate(&executable, graph, 0));
  CHECK(cudaGraphDestroy(graph));
  return executable;
}

int main(int, char **argv) {
  const int steps = atoi(argv[1]);
  float *from, *to, *host;
  cudaStream_t stream;
  CHECK(cudaMalloc(&from, COUNT * sizeof(float)));
  CHECK(cudaMalloc(&to, COUNT * sizeof(float)));
  CHECK(cudaMallocHost(&host, COUNT * sizeof(float)));
  CHECK(cudaStreamCreate(&stream));
  const int value = 7;
  int back = 0;
  CHECK(cudaMemcpyToSymbol(seed, &value, sizeof value));
  CHECK(cudaMemcpyFromSymbol(&back, seed, sizeof back));
  void *address;
  size_t size = 0;
  CHECK(cudaGetSymbolAddress(&address, seed));
  CHECK(cudaGetSymbolSize(&size, seed));
  if (!address || size != sizeof seed) return 1;
  cudaGraphExec_t graph = capture(stream, to);
  for (int step = 0; step < steps; step++) {
    for (int i = 0; i < COUNT; i++) host[i] = (float)step;
    CHECK(cudaMemcpyAsync(from, host, COUNT * sizeof(float), cudaMemcpyHostToDevice, stream));
    CHECK(cudaMemsetAsync(to, 0, COUNT * sizeof(float), stream));
    scale<<<COUNT / 256, 256, 0, stream>>>(COUNT, 2.f, from, to);
    shift<double><<<4, 64, 16, stream>>>((double *)to, 0., 256);
    CHECK(cudaGraphLaunch(graph, stream));
    CHECK(cudaGetLastError());
    CHECK(cudaMemcpyAsync(host, to, COUNT * sizeof(float), cudaMemcpyDeviceToHost, stream));
    CHECK(cudaStreamSynchronize(stream));
  }
  CHECK(cudaDeviceSynchronize());
  printf("back %d last %g\n", back, host[COUNT - 1]);
  return 0;
}
