/**
 * Replaces `docker` in a rehearsal. It knows one command, which prints the digest of the base image that this machine
 * made: `docker buildx imagetools inspect NAME --format '{{.Manifest.Digest}}'`.
 */
import { env } from "node:process";
import { parseArgs } from "node:util";

const { values, positionals } = parseArgs({ options: { format: { type: "string" } }, allowPositionals: true });
const wanted = ["buildx", "imagetools", "inspect", env["REHEARSAL_BASE"]];
if (positionals.join(" ") !== wanted.join(" ") || values.format !== "{{.Manifest.Digest}}")
  throw new Error(`docker ${process.argv.slice(2).join(" ")} is not known here: add it to testbed/rehearsal`);
console.log(env["REHEARSAL_BASE_DIGEST"]);
