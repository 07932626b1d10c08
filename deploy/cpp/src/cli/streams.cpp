// SPDX-License-Identifier: Apache-2.0
#include "cli/streams.hpp"

#include <cerrno>
#include <csignal>
#include <cstring>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "errors.hpp"
#include "system/text.hpp"

namespace hgdeploy {
namespace {

volatile std::sig_atomic_t noting = 0, noted = 0;

int exit_code_of(int signal) { return signal == SIGTERM ? exit_terminated : exit_interrupted; }

// Returns whether all was written.
bool write_all(int descriptor, const std::string& text) {
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t size = ::write(descriptor, text.data() + done, text.size() - done);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return false;
    done += static_cast<std::size_t>(size);
  }
  return true;
}

void on_signal(int signal) {
  if (noting != 0 && noted == 0) {
    noted = signal;
    return;
  }
  constexpr char text[] = "hgdeploy: interrupted\n";
  if (::write(STDERR_FILENO, text, sizeof text - 1) < 0) {
  }
  ::_exit(exit_code_of(signal));
}

}  // namespace

void open_lost_streams() {
  for (int number = 0; number < 3; ++number) {
    struct stat found {};
    if (::fstat(number, &found) == 0) continue;
    // It takes the lowest number that is free. A closed stdout then refuses to be written to.
    if (::open("/dev/null", number == STDERR_FILENO ? O_WRONLY : O_RDONLY) < 0) return;
  }
}

void say(const std::string& text) {
  write_all(STDERR_FILENO, "hgdeploy: " + printable(text) + "\n");
}

void warn(const std::string& text) { say("warning: " + text); }

void print(const std::string& text) {
  if (write_all(STDOUT_FILENO, text)) return;
  if (errno == EPIPE) throw ReaderGone();
  throw OutputError(std::string("stdout cannot be written: ") + std::strerror(errno) +
                    "; write the results to a file");
}

void handle_signals() {
  std::signal(SIGPIPE, SIG_IGN);
  for (const int signal : {SIGINT, SIGTERM}) {
    struct sigaction action {};
    ::sigaction(signal, nullptr, &action);
    if (action.sa_handler == SIG_IGN) continue;
    action = {};
    action.sa_handler = on_signal;
    ::sigaction(signal, &action, nullptr);
  }
}

void note_signals() { noting = 1; }

int interrupted_exit_code() { return noted == 0 ? 0 : exit_code_of(noted); }

}  // namespace hgdeploy
