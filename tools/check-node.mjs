// Exits with a clear message if the Node that runs the scripts is too old. Plain JavaScript that old versions can
// parse. On Linux (x64, arm64), npm puts Node 24 from the optional dependency first on PATH; elsewhere, the installed
// Node runs.

/** The first major version that runs TypeScript directly and has every API that the project uses. */
const OLDEST_MAJOR = 24;

const major = Number(process.versions.node.split(".")[0]);
if (major < OLDEST_MAJOR) {
  const wants = `Berth needs Node ${OLDEST_MAJOR} or newer; this is Node ${process.versions.node} (${process.execPath}).`;
  const fix =
    process.platform === "linux"
      ? "Run it through npm after `npm ci` (without --omit=optional), which brings Node 24 along."
      : `On ${process.platform} no Node comes along: install Node ${OLDEST_MAJOR} (https://nodejs.org) and try again.`;
  process.stderr.write(`${wants}\n${fix}\n`);
  process.exit(1);
}
