import { describeMatrix } from "./matrix.ts";

describeMatrix("Worker");
