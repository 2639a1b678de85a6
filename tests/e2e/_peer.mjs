// The same as `_peer.py append`, in Node: creates exclusively, unlinks only what it created.
//
//     node _peer.mjs append PATH TAG COUNT
import fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import readline from "node:readline";

const [, , mode, path, tag, count] = process.argv;
if (mode !== "append") throw new Error(`unknown: ${mode}`);
const lock = `${path}.lock`;
const starttime = Number(fs.readFileSync("/proc/self/stat", "utf8").split(")").at(-1).trim().split(" ")[19]);

function tryLock() {
  let fd;
  try {
    fd = fs.openSync(lock, "wx");
  } catch (error) {
    if (error.code === "EEXIST") return null;
    throw error;
  }
  const about = { pid: process.pid, createdAt: new Date().toISOString(), maxHoldMs: 300000, starttime };
  const text = `${JSON.stringify(about, null, 2)}\n`;
  fs.writeSync(fd, text);
  return { fd, text };
}

function unlock({ fd, text }) {
  const made = fs.fstatSync(fd).ino;
  fs.closeSync(fd);
  if (!fs.existsSync(lock)) return;
  if (fs.lstatSync(lock).ino === made && fs.readFileSync(lock, "utf8") === text) fs.unlinkSync(lock);
}

console.log("ready");
const input = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
await input.next();
for (let n = 0; n < Number(count); n += 1) {
  let held;
  while ((held = tryLock()) === null) await sleep(1);
  fs.appendFileSync(path, `${JSON.stringify({ by: tag, n, pad: "x".repeat(300) })}\n`);
  unlock(held);
}
console.log("done");
process.exit(0);
