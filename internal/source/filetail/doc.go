// Package filetail follows files of events, each through its rotations: Tetragon's
// export file, and the logs that a container's runtime keeps of what was printed.
//
// # One rule
//
// A [Tail] keeps a set of files, in the order in which they were written. A file is
// known by device and inode and by its content: its first bytes, and those before the
// position up to which it was read. Its name is only where it was seen last. Each round
// the folders are looked through, every file found there is one that is known or new,
// and each file is read from its position to its end, the oldest first. Renaming,
// compressing, copying and truncating, deleting and a kill of this process are all cases
// of it:
//
//   - Renamed: known by its inode. It stays in the set until the name has a new file
//     and nothing was written to it for a look, for its writer may still have it open.
//   - Compressed, or copied before it is truncated: another inode with the same content,
//     so the same file, read on from the same position.
//   - Truncated: what is before the position is not what was read. The file begins anew;
//     the old one is read on where a copy of it is found.
//   - Deleted: a file that is held open is read to its end. One that is gone with its end
//     unread is named, as [Lost]; how many lines it had nobody knows.
//   - Unknown: a file that was not there at the last look is new, and read from its
//     beginning. Only before the first start there were files that are none of ours.
//
// # What is kept
//
// The checkpoint has every file of the set, with the position behind the last event that
// reached its end at every destination, so after a kill no event is missing and some
// come twice. It is written at most four times a second, and read at the start.
//
// # Bounds
//
// Whoever runs processes writes into these files. The longest line, the parts it is
// joined of, the logs, the files of each and the files held open have bounds, and
// unfinished lines share one.
package filetail
