/* One rank of data-parallel training: a step computes, then averages its gradients over all ranks.
 *
 *     smpicc -O2 step.c -o step -lm
 *     smpirun -np RANKS -platform theta.xml --cfg=smpi/allreduce:rdb ./step TIMES STEPS BYTES CYCLE IDLE
 *
 * TIMES is a file of seconds, one a line: each rank draws its computing time of each step from them,
 * all equally likely. BYTES is what a rank gives to the average. CYCLE is the seconds between two
 * agreements of Horovod's background threads, an allreduce of eight bytes that says whether the
 * gradients of all ranks are there; with 0 there are none, and the average waits by itself. The first
 * IDLE agreements of each step only take their time: no rank can have its gradients so early.
 *
 * Rank 0 prints the words below and its numbers, in seconds of the simulated clock.
 */
#include <math.h>
#include <mpi.h>
#include <smpi/smpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const head = 
  "ranks,steps,bytes,cycle,seconds,step_stddev,agreements,agreement_seconds,average_seconds";

/* The finalizer of splitmix64: the same draws on every machine, and none shared by two ranks. */
static uint64_t mixed(uint64_t x)
{
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

static double *read_times(const char *path, uint64_t *count)
{
  FILE *file = fopen(path, "r");
  double *times = NULL, one;
  size_t room = 0;
  *count = 0;
  while (file && fscanf(file, "%lf", &one) == 1) {
    if (*count == room) times = realloc(times, (room = 2 * room + 512) * sizeof *times);
    times[(*count)++] = one;
  }
  if (file) fclose(file);
  if (!*count) {
    fprintf(stderr, "%s: no times; expected seconds, one a line\n", path);
    MPI_Abort(MPI_COMM_WORLD, 2);
  }
  return times;
}

/* The buffers hold nothing: only the way of their bytes costs time. */
static void add_nothing(void *in, void *inout, int *count, MPI_Datatype *type)
{
  (void)in, (void)inout, (void)count, (void)type;
}

static void wait_until(double time)
{
  double seconds = time - MPI_Wtime();
  if (seconds > 0) smpi_execute(seconds);
}

int main(int argc, char **argv)
{
  MPI_Init(&argc, &argv);
  int rank, ranks;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  if (argc != 6) {
    if (rank == 0) fprintf(stderr, "%d words; expected TIMES STEPS BYTES CYCLE IDLE\n", argc - 1);
    MPI_Abort(MPI_COMM_WORLD, 2);
  }
  uint64_t count;
  double *times = read_times(argv[1], &count);
  int steps = atoi(argv[2]), floats = atoi(argv[3]) / (int)sizeof(float);
  double cycle = atof(argv[4]), idle = atof(argv[5]);
  float *own = SMPI_SHARED_MALLOC(floats * sizeof(float));
  float *mean = SMPI_SHARED_MALLOC(floats * sizeof(float));
  MPI_Op add;
  MPI_Op_create(add_nothing, 1, &add);

  MPI_Barrier(MPI_COMM_WORLD);
  double start = MPI_Wtime(), tick = start, agreeing = 0, averaging = 0, last = start, sum = 0, squares = 0;
  long agreements = 0;
  for (int step = 0; step < steps; step++) {
    double ready = MPI_Wtime() + times[mixed(((uint64_t)rank << 32) + (uint64_t)step) % count];
    if (cycle > 0) {
      tick += idle * cycle;
      for (int all = 0; !all; agreements++) {
        wait_until(tick);
        tick = MPI_Wtime();
        long long mine = tick >= ready, ours = 0;
        MPI_Allreduce(&mine, &ours, 1, MPI_LONG_LONG, MPI_MIN, MPI_COMM_WORLD);
        agreeing += MPI_Wtime() - tick;
        all = ours != 0;
        tick += cycle;
      }
    } else {
      wait_until(ready);
    }
    double began = MPI_Wtime();
    MPI_Allreduce(own, mean, floats, MPI_FLOAT, add, MPI_COMM_WORLD);
    double end = MPI_Wtime();
    averaging += end - began;
    sum += end - last;
    squares += (end - last) * (end - last);
    last = end;
  }
  if (rank == 0) {
    double variance = steps > 1 ? (squares - sum * sum / steps) / (steps - 1) : 0;
    printf("%s\n%d,%d,%d,%g,%.9f,%.9f,%ld,%.9f,%.9f\n", head, ranks, steps, floats * (int)sizeof(float), cycle,
           sum, sqrt(fmax(variance, 0)), agreements, agreeing, averaging);
  }

  MPI_Op_free(&add);
  SMPI_SHARED_FREE(own);
  SMPI_SHARED_FREE(mean);
  free(times);
  MPI_Finalize();
  return 0;
}
