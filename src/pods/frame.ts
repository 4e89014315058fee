/**
 * The line that gives a waiting container its session (`parking: Shell` and `Program`), and the shell script that waits
 * for it. The operator writes the line to the container's standard input through `pods/attach`:
 *
 *     berth1 <length> <body> #end
 *
 * `length` is the length of the body in bytes. A reader skips every line that does not have this form, so it ignores an
 * Enter from `kubectl attach`, and half a line whose rest was lost.
 */

/** The variables that identify a session to its program, by name. */
export type SessionVariables = Readonly<Record<string, string>>;

/**
 * The longest frame, in bytes: writes of up to PIPE_BUF bytes to a pipe don't mix with those of other attached clients.
 */
const MAX_FRAME_BYTES = 4_096;

/**
 * The container prints this line when it has read its frame, right before its program starts. It acknowledges the
 * delivery, because a write to a dead connection succeeds, too.
 */
export const STARTED_MARKER = "berth1 started";

/** The `$0` of the waiting shell, for people who list processes. */
const SHELL_NAME = "berth-shell";

/**
 * Waits for a frame. It runs in any POSIX shell. It contains no `$(` and no `$$`, which the kubelet would expand.
 *
 * - As the container's first process, a shell ignores SIGTERM unless it traps it.
 * - `set +xv` keeps credentials out of the log, even if the image's shell traces its commands.
 * - A missing program ends the shell before it waits, so the Pod never counts as free. `command -v` alone accepts any
 *   existing path in some shells.
 */
const WAIT = [
  "{ set +xv; } 2>/dev/null; trap 'exit 143' TERM",
  'case $1 in */*) [ -f "$1" ] && [ -x "$1" ] ;; *) command -v "$1" >/dev/null ;; esac ||',
  '{ echo "$1: not found in the image, or not executable" >&2; exit 127; }',
  "while :; do IFS= read -r _b || exit 75",
  'case $_b in "berth1 "*" #end") ;; *) continue ;; esac',
  // biome-ignore lint/suspicious/noTemplateCurlyInString: a variable of the shell
  "_b=${_b#berth1 }; _n=${_b%% *}; _b=${_b#* }; _b=${_b% #end}",
  // biome-ignore lint/suspicious/noTemplateCurlyInString: a variable of the shell
  '[ "${#_b}" = "$_n" ] && break; done',
].join("\n");

/**
 * Evaluates the frame's body, quietly, and starts the program. The program gets `/dev/null` as its standard input.
 * Otherwise a repeated frame would show it the credential again.
 */
const START = [
  'eval "$_b" 2>/dev/null || exit 75',
  `unset _b _n; trap - TERM; echo '${STARTED_MARKER}'; exec "$@" </dev/null`,
].join("\n");

/** Starts a program that reads its frame itself: the frame is all of its standard input. */
const START_WITH_FRAME = [
  "exec <<END || exit 75",
  "berth1 $_n $_b #end",
  "END",
  `unset _b _n; trap - TERM; echo '${STARTED_MARKER}'; exec "$@"`,
].join("\n");

/** How a waiting shell gives its frame to the program: as variables, or as a line. */
export type Passing = "variables" | "line";

/**
 * The script of a shell that waits for its frame, and then runs its arguments. Exit codes before the program starts: 127
 * the program is missing, 75 standard input was closed or the frame failed, 143 the Pod was deleted.
 */
export function waitingScript(passing: Passing = "variables"): string {
  return `${WAIT}\n${passing === "line" ? START_WITH_FRAME : START}`;
}

/** The command of a container that waits in a shell, and then runs `argv`: the template's `command` and `args`. */
export function waitingCommand(argv: readonly string[], script = waitingScript()): string[] {
  return ["/bin/sh", "-c", script, SHELL_NAME, ...argv];
}

/** Whether a container waits in Berth's shell. */
export function isWaitingCommand(command: readonly string[] | undefined): boolean {
  return command?.[3] === SHELL_NAME;
}

/** Shells count the length of other characters differently, and a line can't contain control characters. */
const PRINTABLE = /^[\x20-\x7e]*$/;

/**
 * The frame for a waiting shell; null: a value has control or non-ASCII characters, or the frame would be too long.
 * @throws TypeError if a name is not a valid shell variable
 */
export function shellFrame(variables: SessionVariables): string | null {
  const assignments = Object.entries(variables).map(([name, value]) => {
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) throw new TypeError(`${name} is not a valid variable name`);
    return `${name}=${quoted(value)}`;
  });
  return framed(`export ${assignments.join(" ")}`);
}

/** The frame for a waiting program: a JSON object of variables. Null: the frame would be too long. */
export function programFrame(variables: SessionVariables): string | null {
  const ascii = JSON.stringify(variables).replaceAll(
    /[^\x20-\x7e]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
  return framed(ascii);
}

/** The leading line break ends a partial line from an earlier client. */
function framed(body: string): string | null {
  const frame = `\nberth1 ${body.length} ${body} #end\n`;
  return PRINTABLE.test(body) && frame.length < MAX_FRAME_BYTES ? frame : null;
}

function quoted(value: string): string {
  return `'${value.replaceAll("'", "'\\''")}'`;
}
