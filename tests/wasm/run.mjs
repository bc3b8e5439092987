// Runs the tests that need no operating system on CPython in WebAssembly:
//     node run.mjs TOOLS [pytest's arguments]
// TOOLS is a folder with Pyodide in `node_modules` and Python packages in `site-packages`.

import { join, resolve } from "node:path";
import { argv } from "node:process";
import { pathToFileURL } from "node:url";

const [tools, ...options] = argv.slice(2);
const project = resolve(import.meta.dirname, "../..");
const { loadPyodide } = await import(
  pathToFileURL(join(resolve(tools), "node_modules/pyodide/pyodide.mjs"))
);
const pyodide = await loadPyodide();

// The folders of this system that Python sees, and where.
const mounts = { "/project": project, "/packages": join(resolve(tools), "site-packages") };
for (const [path, root] of Object.entries(mounts)) {
  pyodide.FS.mkdirTree(path);
  pyodide.FS.mount(pyodide.FS.filesystems.NODEFS, { root }, path);
}
pyodide.FS.chdir("/project");
pyodide.globals.set("options", pyodide.toPy(options));
try {
  process.exit(
    pyodide.runPython(`
import sys
sys.path[:0] = ["/project/src", "/project", "/packages"]
from tests.wasm import runner
runner.main(options)
`),
  );
} catch (error) {
  // Node would show a line of Pyodide's source, which is longer than all else.
  console.error(error.message);
  process.exit(1);
}
