/* Ranks write one file together by MPI-IO and read what the others wrote: shared_file DIR [DIR ...]
 * The directories are mounts of the same filesystem; ranks are dealt to them in blocks (4 ranks, 2 directories: 0 and 1 use the first, 2 and 3 the second). */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 100003, BLOCKS = 16 };

static int rank, size;

static void fail(const char *what, int code)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int length;

    if (code != MPI_SUCCESS)
        MPI_Error_string(code, text, &length);
    fprintf(stderr, "rank %d: %s: %s\n", rank, what, text);
    MPI_Abort(MPI_COMM_WORLD, 1);
}

static void must(int code, const char *what)
{
    if (code != MPI_SUCCESS)
        fail(what, code);
}

static unsigned char byte_of(int owner, int block, int at)
{
    return (unsigned char)(owner * 31 + block * 7 + at * 13 + at / 251);
}

static void fill(unsigned char *data, int owner)
{
    for (int block = 0; block < BLOCKS; block++)
        for (int at = 0; at < BLOCK; at++)
            data[block * BLOCK + at] = byte_of(owner, block, at);
}

static void check(const unsigned char *data, int owner, const char *what)
{
    for (int block = 0; block < BLOCKS; block++)
        for (int at = 0; at < BLOCK; at++)
            if (data[block * BLOCK + at] != byte_of(owner, block, at)) {
                fprintf(stderr, "%s: rank %d reads block %d of rank %d: byte %d is %d instead of %d\n", what, rank, block, owner, at,
                        data[block * BLOCK + at], byte_of(owner, block, at));
                MPI_Abort(MPI_COMM_WORLD, 2);
            }
}

static MPI_File open_file(const char *path, int mode, MPI_Info hints)
{
    MPI_File file;

    must(MPI_File_open(MPI_COMM_WORLD, path, mode, hints, &file), path);
    return file;
}

/* What one rank wrote and synced, another sees after sync, barrier, sync (MPI-4, 14.6.1). */
static void sync_all(MPI_File file)
{
    must(MPI_File_sync(file), "sync");
    MPI_Barrier(MPI_COMM_WORLD);
    must(MPI_File_sync(file), "sync");
}

/* Each rank has a stretch of the file. */
static void contiguous(const char *path, MPI_Info hints, unsigned char *data)
{
    int bytes = BLOCK * BLOCKS, next = (rank + 1) % size;
    MPI_Offset length;
    MPI_File file = open_file(path, MPI_MODE_CREATE | MPI_MODE_RDWR, hints);

    fill(data, rank);
    must(MPI_File_write_at_all(file, (MPI_Offset)rank * bytes, data, bytes, MPI_BYTE, MPI_STATUS_IGNORE), "write_at_all");
    sync_all(file);
    must(MPI_File_get_size(file, &length), "get_size");
    if (length != (MPI_Offset)size * bytes)
        fail("the size is not what was written", MPI_SUCCESS);
    must(MPI_File_read_at_all(file, (MPI_Offset)next * bytes, data, bytes, MPI_BYTE, MPI_STATUS_IGNORE), "read_at_all");
    check(data, next, "contiguous");
    must(MPI_File_close(&file), "close");
}

/* Blocks of all ranks alternate; without collective buffering this is read, modify and write under fcntl locks. */
static void interleaved(const char *path, MPI_Info hints, unsigned char *data)
{
    int bytes = BLOCK * BLOCKS, previous = (rank + size - 1) % size;
    MPI_Datatype view;
    MPI_File file = open_file(path, MPI_MODE_CREATE | MPI_MODE_RDWR, hints);

    MPI_Type_vector(BLOCKS, BLOCK, BLOCK * size, MPI_BYTE, &view);
    MPI_Type_commit(&view);
    must(MPI_File_set_view(file, (MPI_Offset)rank * BLOCK, MPI_BYTE, view, "native", MPI_INFO_NULL), "set_view");
    fill(data, rank);
    must(MPI_File_write_at_all(file, 0, data, bytes, MPI_BYTE, MPI_STATUS_IGNORE), "write_at_all");
    sync_all(file);
    must(MPI_File_set_view(file, (MPI_Offset)previous * BLOCK, MPI_BYTE, view, "native", MPI_INFO_NULL), "set_view");
    must(MPI_File_read_at_all(file, 0, data, bytes, MPI_BYTE, MPI_STATUS_IGNORE), "read_at_all");
    check(data, previous, "interleaved");
    MPI_Type_free(&view);
    must(MPI_File_close(&file), "close");
}

static MPI_Info hints_of(const char *collective)
{
    MPI_Info hints;

    MPI_Info_create(&hints);
    MPI_Info_set(hints, "romio_cb_write", collective);
    MPI_Info_set(hints, "romio_cb_read", collective);
    MPI_Info_set(hints, "romio_ds_write", "enable");
    /* Several ranks of one host write, not one for all. */
    MPI_Info_set(hints, "cb_config_list", "*:*");
    return hints;
}

int main(int argc, char **argv)
{
    static const char *collective[] = {"enable", "disable"};
    unsigned char *data = malloc((size_t)BLOCK * BLOCKS);
    char path[4096];

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (argc < 2 || data == NULL)
        fail("usage: shared_file DIR [DIR ...]", MPI_SUCCESS);
    const char *directory = argv[1 + rank * (argc - 1) / size];
    for (int n = 0; n < 2; n++) {
        MPI_Info hints = hints_of(collective[n]);
        snprintf(path, sizeof path, "%s/contiguous-%s", directory, collective[n]);
        contiguous(path, hints, data);
        snprintf(path, sizeof path, "%s/interleaved-%s", directory, collective[n]);
        interleaved(path, hints, data);
        MPI_Info_free(&hints);
    }
    printf("rank %d of %d by %s\n", rank, size, directory);
    free(data);
    MPI_Finalize();
    return 0;
}
