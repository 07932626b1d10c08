// SPDX-License-Identifier: Apache-2.0
// What the sample for phones uses of MNN's header of this name; see Tensor.hpp.
#pragma once

#include <MNN/Tensor.hpp>
#include <cstddef>
#include <string>
#include <vector>

typedef enum { MNN_FORWARD_CPU = 0 } MNNForwardType;

namespace MNN {

enum ErrorCode { NO_ERROR = 0 };
class Session;

struct BackendConfig {
    enum MemoryMode { Memory_Normal = 0 };
    enum PowerMode { Power_Normal = 0 };
    enum PrecisionMode { Precision_Normal = 0, Precision_High, Precision_Low };

    MemoryMode memory = Memory_Normal;
    PowerMode power = Power_Normal;
    PrecisionMode precision = Precision_Normal;
    void* sharedContext = nullptr;
};

struct ScheduleConfig {
    std::vector<std::string> saveTensors;
    MNNForwardType type = MNN_FORWARD_CPU;
    int numThread = 4;
    struct Path {
        std::vector<std::string> inputs;
        std::vector<std::string> outputs;
        int mode = 0;
    };
    Path path;
    MNNForwardType backupType = MNN_FORWARD_CPU;
    BackendConfig* backendConfig = nullptr;
};

class Interpreter {
public:
    enum HintMode { WINOGRAD_MEMORY_LEVEL = 3 };

    static Interpreter* createFromFile(const char* file);
    static void destroy(Interpreter* net);
    void setSessionHint(HintMode mode, int value);
    Session* createSession(const ScheduleConfig& config);
    void resizeSession(Session* session);
    ErrorCode runSession(Session* session) const;
    Tensor* getSessionInput(const Session* session, const char* name);
    Tensor* getSessionOutput(const Session* session, const char* name);
    void resizeTensor(Tensor* tensor, const std::vector<int>& shape);

    Interpreter() = delete;
};

}  // namespace MNN
