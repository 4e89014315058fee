import { ANNOTATION_PARKING } from "../../src/api/names.ts";
import { isRecord } from "../../src/core/json.ts";
import type { Container, Pod } from "../../src/kube/objects.ts";
import { isWaitingCommand } from "../../src/pods/frame.ts";
import { turnNumber } from "../../src/pods/turns.ts";
import { mainContainerName } from "./fate.ts";
import { isKeeper } from "./keeper.ts";

/** How a container waits for its session: in Berth's shell, or as a program that reads its item itself. */
export type Parking = "Shell" | "Program";

/** What a waiting container prints when it has read its frame. */
export const STARTED = "berth1 started";

/** Longer writes to a pipe may mix with those of other clients (PIPE_BUF). */
const MAX_BYTES = 4_096;

/** The variables that a frame gives to a container. */
export type SessionFrame = Readonly<Record<string, string>>;

/** A line that has the form of a frame, but must never be sent. The message contains no part of it. */
export class FrameError extends Error {}

/** Returns how a container waits for a frame, or undefined if it doesn't. */
export function parkingOf({ metadata, ...pod }: Pod, container: Container): Parking | undefined {
  if (container["stdin"] !== true || isKeeper(container)) return undefined;
  const isProgram = metadata.annotations?.[ANNOTATION_PARKING] === "Program";
  if (!isProgram) return isWaitingCommand(container.command) ? "Shell" : undefined;
  const isSession = turnNumber(container.name) > 0 || container.name === mainContainerName({ metadata, ...pod });
  return isSession ? "Program" : undefined;
}

/** Whether a shell starts the container's program, as for every turn. A shell ends if the program is missing. */
export function isStartedByShell({ name, command }: Container): boolean {
  return isWaitingCommand(command) || turnNumber(name) > 0;
}

/**
 * Reads a line of standard input. A shell would evaluate any body, but this accepts only what the operator may send, so
 * that tests notice anything else.
 *
 * @returns undefined if a waiting shell skips the line
 * @throws FrameError
 */
export function readFrame(line: string, parking: Parking): SessionFrame | undefined {
  const [, length, body = ""] = /^berth1 (\S*) (.*) #end$/.exec(line) ?? [];
  if (length !== String(body.length)) return undefined;
  // The line breaks before and after it are part of the frame.
  if (line.length + 2 > MAX_BYTES) throw new FrameError(`the frame has ${line.length + 2} bytes`);
  if (!/^[\x20-\x7e]*$/.test(body)) throw new FrameError("the frame has characters that are not printable ASCII");
  return parking === "Shell" ? readScript(body) : readObject(body);
}

const QUOTED = String.raw`'(?:[^']|'\\'')*'`;
const ASSIGNMENT = ` ([A-Za-z_][A-Za-z0-9_]*)=(${QUOTED})`;
const SCRIPT = new RegExp(`^export((?:${ASSIGNMENT})+)$`);

function readScript(body: string): SessionFrame {
  const [, assignments] = SCRIPT.exec(body) ?? [];
  if (assignments === undefined) throw new FrameError("the frame is not a list of exports");
  const variables: Record<string, string> = {};
  for (const [, name = "", value = ""] of assignments.matchAll(new RegExp(ASSIGNMENT, "g"))) {
    if (Object.hasOwn(variables, name)) throw new FrameError(`the frame sets ${name} twice`);
    variables[name] = unquoted(value);
  }
  return variables;
}

function unquoted(word: string): string {
  return word.slice(1, -1).replaceAll("'\\''", "'");
}

/**
 * Maps the words in frames for a shell, because a process on this machine doesn't have the paths of a container. Other
 * bytes stay unchanged.
 */
export function mapFrames(bytes: Buffer, map: (word: string) => string): Buffer {
  const text = bytes.toString("latin1").replace(/^berth1 (\d+) (.*) #end$/gm, (line, length: string, body: string) => {
    if (length !== String(body.length)) return line;
    const mapped = body.replaceAll(new RegExp(QUOTED, "g"), (word) => quoted(map(unquoted(word))));
    return `berth1 ${mapped.length} ${mapped} #end`;
  });
  return Buffer.from(text, "latin1");
}

function quoted(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}

function readObject(body: string): Record<string, string> {
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch {
    throw new FrameError("the frame is not JSON");
  }
  if (!isRecord(value) || Object.values(value).some((each) => typeof each !== "string")) {
    throw new FrameError("the frame is not an object of strings");
  }
  return value as Record<string, string>;
}
