import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { NodeCluster } from "../real-node/node-cluster.ts";

const SOCKET = "/run/dbus/system_bus_socket";
/** The Python that Debian's packages belong to, even if the PATH has another one first. */
const PYTHON = "/usr/bin/python3";
const READY_TRIES = 100;
const PAUSE_MS = 100;

const BUS_CONFIG = `<busconfig>
  <type>system</type>
  <listen>unix:path=${SOCKET}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/>
  </policy>
</busconfig>
`;

/** A system bus with a stand-in for systemd-logind, in a node's namespaces. */
export interface Logind {
  /** Waits until the kubelet inhibits a shutdown. */
  inhibited(): Promise<void>;
  /** Tells the kubelet that the machine shuts down. */
  shutDown(): Promise<void>;
  /** Resolves when the kubelet lets the shutdown continue. */
  released(): Promise<void>;
}

/** Must run before the kubelet that uses it starts. Needs Debian's dbus, python3-dbus, and python3-gi. */
export async function startLogind({ control, dir }: NodeCluster): Promise<Logind> {
  const config = join(dir, "dbus.conf");
  await writeFile(config, BUS_CONFIG);
  await control.run("mkdir", ["-p", "/run/dbus"]);
  const args = [`--config-file=${config}`, "--nofork", "--nopidfile"];
  await control.spawn({ name: "dbus", command: "dbus-daemon", args });
  await until("the system bus", async () => (await control.run("test", ["-S", SOCKET])).code === 0);
  const script = join(import.meta.dirname, "logind.py");
  const env = { DBUS_SYSTEM_BUS_ADDRESS: `unix:path=${SOCKET}` };
  await control.spawn({ name: "logind", command: PYTHON, args: [script], env });
  const said = (word: string) =>
    until(`logind's word "${word}"`, async () => {
      const log = await readFile(join(dir, "logs", "logind.log"), "utf8").catch(() => "");
      if (log.includes("Traceback")) throw new Error(`the stand-in for logind failed: ${log}`);
      return log.includes(word);
    });
  await said("ready");
  return {
    inhibited: () => said("inhibit shutdown"),
    shutDown: () => control.signal("logind", "SIGUSR1"),
    released: () => said("released"),
  };
}

async function until(what: string, done: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < READY_TRIES; tries += 1) {
    if (await done()) return;
    await delay(PAUSE_MS);
  }
  throw new Error(`${what} never came`);
}
