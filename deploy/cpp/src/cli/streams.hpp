// SPDX-License-Identifier: Apache-2.0
// stdout for results, stderr for messages, and the signals that end a run early:
// deploy/python/hgdeploy/cli/streams.py and terminal.py.
#pragma once

#include <string>

namespace hgdeploy {

// Nobody reads stdout any more, as `head` when it has enough.
struct ReaderGone {};

// Opens what this process was started without, as `>&-` does; else a file takes its number.
void open_lost_streams();

// Prints one line to stderr, after `hgdeploy: `; it is dropped where nobody can read it.
void say(const std::string& text);
void warn(const std::string& text);

// Writes to stdout at once. Throws ReaderGone; OutputError: it cannot be written.
void print(const std::string& text);

// From now on SIGINT and SIGTERM end this process with their exit codes; after `note_signals` they
// are only noted, the first of them. A signal that this process was started to ignore stays
// ignored.
void handle_signals();
void note_signals();
// The exit code that the noted signal asks for; 0 for none.
int interrupted_exit_code();

}  // namespace hgdeploy
