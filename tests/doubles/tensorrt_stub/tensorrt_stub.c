/* SPDX-License-Identifier: Apache-2.0 */
/* The symbols that TensorRT's Python bindings want from its libraries before they can be imported.
 * Enough to read the classes, names and signatures; nothing here can build or run an engine. */

#define STUB(name) void *name(void) { return 0; }

STUB(createInferBuilder_INTERNAL)
STUB(createInferRefitter_INTERNAL)
STUB(createInferRuntime_INTERNAL)
STUB(createNvOnnxParserRefitter_INTERNAL)
STUB(createNvOnnxParser_INTERNAL)
STUB(getBuilderPluginRegistry)
STUB(getNvOnnxParserVersion)
STUB(getPluginRegistry)
STUB(initLibNvInferPlugins)
