import { LineCounter, parseAllDocuments } from "yaml";

/** A text is not valid YAML. The message gives the error and its position, and quotes nothing of the text. */
export class YamlError extends Error {}

/**
 * Returns the documents of a YAML stream as plain values. An empty document is null; an empty text has no documents.
 * @throws YamlError
 */
export function yamlDocuments(text: string): unknown[] {
  const lines = new LineCounter();
  const documents = [...parseAllDocuments(text, { prettyErrors: false, lineCounter: lines })];
  const [broken] = documents.flatMap(({ errors }) => errors);
  if (broken) {
    const { line, col } = lines.linePos(broken.pos[0]);
    // The parser's messages quote the text, which may be a Secret. Its codes, such as BAD_INDENT, do not.
    throw new YamlError(`line ${line}, column ${col}: ${broken.code.toLowerCase().replaceAll("_", " ")}`);
  }
  try {
    return documents.map((document): unknown => document.toJS());
  } catch {
    throw new YamlError("an alias has no anchor, or there are too many aliases");
  }
}
