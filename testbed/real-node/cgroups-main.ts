/** Removes the control group that the argument names. A node's supervisor runs this, even if its owner was killed. */
import { removeCgroups } from "./cgroups.ts";

const [name] = process.argv.slice(2);
if (!name) throw new Error("cgroups-main.ts needs the name of a control group as its argument");
await removeCgroups(name);
