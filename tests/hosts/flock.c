/* flock as some network file systems have it. OTEL_STAGEIO_HOST_ID says on which host a process is, FLOCK how it goes:

   shared   as NFS does it: made of byte locks, so that a shared lock takes a file open for reading, an exclusive one a
            file open for writing
   local    the same, but kept on the host: each host locks a byte of its own
   refused  not at all
*/
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

static off_t byte_of_host(void)
{
    const char *host = getenv("OTEL_STAGEIO_HOST_ID");
    off_t sum = 5381;
    for (; host && *host; host++)
        sum = (sum * 33 + (unsigned char)*host) % 1000000007;
    return sum;
}

int flock(int fd, int operation)
{
    const char *how = getenv("FLOCK");
    struct flock lock = {0};
    int kind = operation & ~LOCK_NB;
    if (how && !strcmp(how, "refused")) {
        errno = ENOLCK;
        return -1;
    }
    lock.l_type = kind == LOCK_EX ? F_WRLCK : kind == LOCK_SH ? F_RDLCK : F_UNLCK;
    lock.l_start = how && !strcmp(how, "local") ? byte_of_host() : 0;
    lock.l_len = 1;
    /* Of the open file, as flock is: shared with forked children, gone with the last descriptor. */
    if (fcntl(fd, operation & LOCK_NB ? F_OFD_SETLK : F_OFD_SETLKW, &lock) == 0)
        return 0;
    if (errno == EAGAIN || errno == EACCES)
        errno = EWOULDBLOCK;
    return -1;
}
