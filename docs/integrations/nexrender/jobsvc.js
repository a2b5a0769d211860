"use strict";

/** An action of nexrender that writes its job as a job of jobsvc: for predownload and for postrender. See README.md. */

const { execFile } = require("child_process");
const fs = require("fs");
const path = require("path");

const INTERVAL_MS = 2000; // between two records of the progress
const HEARTBEAT_MS = 60_000; // so that the job is not taken for stalled
const TIMEOUT_MS = 60_000; // of one command: storage that does not respond must not stop the render
const writers = new WeakMap(); // by job of nexrender

module.exports = async (job, settings, action, type) => {
  const log = (error) => settings.logger.log(`[${job.uid}] jobsvc: ${error.message}`);
  try {
    if (type !== "postrender") writers.set(job, await new Writer(job, action, log).create(action));
    else if (writers.has(job)) await writers.get(job).complete(action);
    else throw new Error("the job is not written, because this action is not in predownload, or failed there");
  } catch (error) {
    log(error); // the render is more important than its record
  }
};

class Writer {
  constructor(job, { jobsRoot = process.env.JOBSVC_JOBS_ROOT, command = "jobsvc" }, log) {
    Object.assign(this, { job, jobsRoot, command, log, percent: 0, phase: "download", reportedAt: 0, isReporting: false });
    this.id = /^[A-Za-z0-9]/.test(job.uid) ? job.uid : `x${job.uid}`; // ids of jobsvc begin with a letter or digit
  }

  /** Create the job, and write what nexrender tells of it. Throws Error if that is not possible. */
  async create({ owner }) {
    const { job, jobsRoot } = this;
    if (!owner || !jobsRoot) throw new Error("the action needs `owner`, and `jobsRoot` or JOBSVC_JOBS_ROOT");
    const metadata = JSON.stringify({ composition: job.template.composition, tags: job.tags });
    const words = ["--owner", owner, "--id", this.id, "--project", job.template.src, "--metadata", metadata];
    await this.farm("create", "--restart", ...words);
    this.timer = setInterval(() => this.report(), HEARTBEAT_MS);
    this.timer.unref();
    this.listen("onChange", (state) => this.change(state.replace("render:", "")));
    this.listen("onRenderProgress", (percent) => Date.now() - this.reportedAt > INTERVAL_MS && this.report(percent));
    this.listen("onRenderError", (error) => (this.error ??= error.message));
    this.report();
    return this;
  }

  /** Call a function at an event of the job, beside the one that is there. */
  listen(name, listener) {
    const { job } = this;
    const before = job[name];
    job[name] = (...values) => {
      listener(values[1]);
      return before?.apply(job, values);
    };
  }

  /** Write the state of nexrender as the phase. If it is cleaning up before the job is completed, it has failed. */
  change(phase) {
    if (this.isEnded) return;
    const error = this.error?.trim().slice(0, 2000) || `nexrender failed in ${this.phase}`;
    if (phase === "cleanup") this.end("fail", "--", this.id, error);
    else this.report(this.percent, phase);
  }

  /** Write the progress, without waiting for it. While that takes long, only the newest is kept. */
  async report(percent = this.percent, phase = this.phase) {
    Object.assign(this, { percent, phase, reportedAt: Date.now(), isNewer: true });
    if (this.isReporting) return;
    this.isReporting = true;
    while (this.isNewer && !this.isEnded) {
      this.isNewer = false;
      await this.attempt("progress", "--phase", this.phase, "--", this.id, String(Math.min(this.percent, 99)));
    }
    this.isReporting = false;
  }

  /** Copy what was rendered, or the file `input` of an action before this, into the job's directory, and end the job. */
  async complete({ input }) {
    const { job, id } = this;
    const source = input ? path.resolve(job.workpath, input) : job.output;
    const [before, after] = path.basename(source).split(/\[#+\]/); // the frames of a sequence: result_[#####].png
    const isWanted = (name) => name === before || (after !== undefined && name.startsWith(before) && name.endsWith(after));
    const folder = path.join(this.jobsRoot, id, "output");
    try {
      const names = (await fs.promises.readdir(path.dirname(source))).filter(isWanted);
      if (names.length === 0) throw new Error(`${source} is missing`);
      await fs.promises.mkdir(folder, { recursive: true });
      for (const name of names) {
        const temporary = path.join(folder, `.${name}.part`);
        await fs.promises.copyFile(path.join(path.dirname(source), name), temporary);
        await fs.promises.rename(temporary, path.join(folder, name));
      }
      const output = `output/${path.basename(source).replace(/[[\]]/g, "")}`;
      await this.farm("output", "--role", "main", "--", id, "main", output);
    } catch (error) {
      this.log(error);
      return this.end("fail", "--", id, `the output was not copied: ${error.message}`.slice(0, 2000));
    }
    await this.end("complete", "--", id);
  }

  /** End the job, and write no more. */
  async end(...words) {
    this.isEnded = true;
    clearInterval(this.timer);
    await this.attempt(...words);
  }

  async attempt(name, ...words) {
    try {
      await this.farm(name, ...words);
    } catch (error) {
      if (name !== "progress" || !this.isEnded) this.log(error); // progress that comes after the end is refused
    }
  }

  /**
   * Run a command of `jobsvc farm`.
   *
   * nexrender goes on meanwhile: it would take a render for stuck whose lines it cannot read. A process that waits for
   * storage may not end even when it is killed, so it is not waited for.
   */
  farm(name, ...words) {
    return new Promise((resolve, reject) => {
      const child = execFile(this.command, ["farm", name, "--jobs-root", this.jobsRoot, ...words], (error, _, stderr) => {
        clearTimeout(timer);
        if (error) reject(new Error(stderr.trim() || error.message));
        else resolve();
      });
      const timer = setTimeout(() => {
        reject(new Error(`jobsvc farm ${name} has not ended within ${TIMEOUT_MS / 1000} s`));
        child.kill("SIGKILL");
        for (const handle of [child, child.stdin, child.stdout, child.stderr]) handle.unref(); // nexrender may end
      }, TIMEOUT_MS);
    });
  }
}
