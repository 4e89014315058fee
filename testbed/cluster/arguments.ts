/** What the arguments of `npm run cluster` request. */
export type Request =
  | { readonly kind: "help" }
  | { readonly kind: "keep"; readonly node?: true }
  | { readonly kind: "run"; readonly command: string; readonly args: readonly string[]; readonly node?: true }
  | { readonly kind: "mistake"; readonly message: string };

export const USAGE = "Usage: npm run cluster [-- [--node] [COMMAND [ARGS...]] | -- --help]";

export const HELP = `${USAGE}

Without a command: starts a Kubernetes control plane (etcd, API server, controller-manager, scheduler) on this
machine, prints the path of its kubeconfig and keeps it running until Ctrl-C. It has no nodes, and Berth is not
installed.

With a command: runs the command against the running cluster of this checkout, which this program or the demo started.
KUBECONFIG is set, and kubectl and helm are on PATH:

  npm run cluster -- kubectl get benv -A
  npm run cluster -- bash

With --node, the cluster has a real node: kubelet, containerd and runc, in separate namespaces. The node has the images
of the operator, the stock workers and the work simulator. It needs Linux, root, and some Debian packages, which
\`npm run setup:node\` installs. Everything ends with this process.

BERTH_TEST_KUBERNETES selects the minor version of Kubernetes, such as 1.30. The default is the newest known version.

The first run downloads the official binaries of the control plane, or builds them with Go 1.26 in a few minutes if
they can't be downloaded. BERTH_TEST_DOWNLOADS is the URL of a mirror, or "off" to always build. The binaries are kept
in \${XDG_CACHE_HOME:-~/.cache}/berth. To use other binaries, set KUBEBUILDER_ASSETS to their folder.
`;

/** Parses the arguments after `npm run cluster --`. Everything after the command belongs to the command. */
export function parseArguments(argv: readonly string[]): Request {
  const words = argv[0] === "--" ? argv.slice(1) : argv;
  const node = words[0] === "--node" ? ({ node: true } as const) : {};
  const [command, ...args] = words.slice("node" in node ? 1 : 0);
  if (command === undefined) return { kind: "keep", ...node };
  if (command === "--help" || command === "-h") return { kind: "help" };
  if (command.startsWith("-")) return { kind: "mistake", message: `unknown flag ${command}` };
  if (command === "") return { kind: "mistake", message: "the command is empty" };
  return { kind: "run", command, args, ...node };
}
