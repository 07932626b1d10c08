// SPDX-License-Identifier: Apache-2.0
// hgdeploy-predict: classifies images with a bundle, as `hgdeploy predict` does.
#include <new>
#include <string>

#include "classify/classifier.hpp"
#include "classify/folder.hpp"
#include "cli/arguments.hpp"
#include "cli/streams.hpp"
#include "errors.hpp"
#include "images/find.hpp"
#include "results/rows.hpp"

namespace {

using namespace hgdeploy;

int predict(const Arguments& arguments) {
  // In this order, most mistakes show before anything slow begins.
  const std::vector<ImageFile> files = find_images(arguments.inputs, warn);
  Summary summary;
  summary.found = files.size();
  const Classifier classifier(arguments.bundle, folder_settings(arguments.settings, files.size()));
  FolderRun run;
  run.workers = arguments.workers;
  run.on_warning = warn;
  run.interrupted = [] { return interrupted_exit_code() != 0; };
  run.write = [&](const Prediction& prediction, const FileFacts& facts) {
    if (arguments.json)
      print(json_line(prediction, facts) + "\n");
    else if (!prediction.error)
      print(text_line(prediction) + "\n");
  };
  note_signals();
  classify_files(classifier, files, run, summary);
  if (const int code = interrupted_exit_code()) {
    say("interrupted: " + std::to_string(summary.classified + summary.failed) + " of " +
        std::to_string(summary.found) + " images are done and their results are written");
    return code;
  }
  say(summary.text());
  if (summary.found > 1)
    for (const std::string& line : summary.details()) say(line);
  return summary.exit_code();
}

int run(int argc, char** argv) {
  try {
    const Arguments arguments = parse_arguments(argc, argv);
    if (arguments.printed.empty()) return predict(arguments);
    print(arguments.printed);
    return exit_ok;
  } catch (const ReaderGone&) {
    return exit_ok;
  } catch (const Error& error) {
    say(std::string("error: ") + error.what());
    return error.exit_code();
  } catch (const std::bad_alloc&) {
    say("error: the memory is not enough; use smaller batches or images");
    return ResourceError("").exit_code();
  } catch (const std::exception& error) {
    say(std::string("error: ") + error.what());
    return 1;
  }
}

}  // namespace

int main(int argc, char** argv) {
  open_lost_streams();
  handle_signals();
  return run(argc, argv);
}
