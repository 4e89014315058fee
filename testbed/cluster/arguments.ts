/** What `npm run cluster` was asked for. */
export type Request =
  | { readonly kind: "help" }
  | { readonly kind: "keep" }
  | { readonly kind: "run"; readonly command: string; readonly args: readonly string[] }
  | { readonly kind: "mistake"; readonly message: string };

export const USAGE = "Usage: npm run cluster [-- COMMAND [ARGS...] | -- --help]";

export const HELP = `${USAGE}

Without a command: starts a Kubernetes control plane (etcd, API server, controller-manager, scheduler) on this
machine, prints the path of its kubeconfig and keeps it until Ctrl-C. There are no nodes in it.

With a command: runs it against the cluster that runs already, started like that or by the demo; else against a
new one that ends with the command. KUBECONFIG is set, and kubectl and helm are on PATH:

  npm run cluster -- kubectl get benv -A
  npm run cluster -- bash

The control plane is built once per user, which takes some minutes and Go 1.26, and kept in
\${XDG_CACHE_HOME:-~/.cache}/berth. Binaries in the folder that KUBEBUILDER_ASSETS names are used instead.
`;

/** Reads the arguments behind `npm run cluster --`. What follows the command belongs to the command. */
export function parseArguments(argv: readonly string[]): Request {
  const [command, ...args] = argv[0] === "--" ? argv.slice(1) : argv;
  if (command === undefined) return { kind: "keep" };
  if (command === "--help" || command === "-h") return { kind: "help" };
  if (command.startsWith("-")) return { kind: "mistake", message: `unknown flag ${command}` };
  if (command === "") return { kind: "mistake", message: "the command is empty" };
  return { kind: "run", command, args };
}
