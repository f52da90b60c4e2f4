// What a program in JavaScript does with a ClickHouse, done with the official client against the address it is given.
// Started by test_foreign_clients.py; ends with an assertion's words, or prints what it has seen to work, line by line.

const assert = require("node:assert/strict");
const { Readable } = require("node:stream");
const { createClient } = require("@clickhouse/client");

const { URL: url, FULL_TOKEN: fullToken, READER_TOKEN: readerToken } = process.env;
const LONG = "SELECT count() FROM numbers(1000000000000)";
const open = (username, password, more = {}) => createClient({ url, username, password, database: "pilothouse", ...more });
const full = open("pilothouse", fullToken);
const reader = open("reader", readerToken);
const packed = open("pilothouse", fullToken, { compression: { request: true, response: true } });

const steps = {
  async "ping, with and without a query"() {
    assert.equal((await full.ping()).success, true);
    assert.equal((await reader.ping({ select: true })).success, true);
    const stranger = open("reader", "wrong");
    const refused = await stranger.ping({ select: true });
    assert.equal(refused.success, false);
    assert.equal(refused.error.code, "516");
    await stranger.close();
  },

  async "a table, rows as objects, and a stream of them through gzip"() {
    await full.command({ query: "CREATE TABLE from_js (step UInt64, loss Float64, name String) ENGINE = MergeTree ORDER BY step" });
    const few = [{ step: 1, loss: "nan", name: "é漢 '\\\t" }, { step: 2, loss: "-inf", name: "" }];
    await full.insert({ table: "from_js", values: few, format: "JSONEachRow" });
    const many = Readable.from((function* () { for (let step = 3; step <= 50000; step++) yield { step, loss: 1 / step, name: "n" }; })());
    const inserted = await packed.insert({ table: "from_js", values: many, format: "JSONEachRow" });
    assert.equal(inserted.summary.written_rows, "49998");
    const rows = await (await packed.query({ query: "SELECT * FROM from_js ORDER BY step", format: "JSONEachRow" })).json();
    assert.equal(rows.length, 50000);
    assert.deepEqual(rows.slice(0, 2), [{ step: "1", loss: "nan", name: "é漢 '\\\t" }, { step: "2", loss: "-inf", name: "" }]
      .map((row) => ({ ...row, step: typeof rows[0].step === "number" ? Number(row.step) : row.step })));
  },

  async "rows as they arrive, and the formats of a whole result"() {
    const result = await reader.query({ query: "SELECT number FROM numbers(100000)", format: "JSONCompactEachRow" });
    let seen = 0;
    for await (const rows of result.stream()) seen += rows.length;
    assert.equal(seen, 100000);
    const whole = await (await reader.query({ query: "SELECT 1 AS one, 'x' AS x" })).json();
    assert.deepEqual(whole.meta, [{ name: "one", type: "UInt8" }, { name: "x", type: "String" }]);
    assert.equal(await (await reader.query({ query: "SELECT 1, 'a'", format: "CSV" })).text(), '1,"a"\n');
  },

  async "parameters of every shape"() {
    const at = new Date(Date.UTC(2026, 2, 1, 12, 30, 15, 123));
    const result = await reader.query({
      query: "SELECT {s:String} AS s, {a:Array(String)} AS a, {f:Float64} AS f, {n:Nullable(String)} AS n, {m:Map(String, UInt8)} AS m,"
        + " {b:Bool} AS b, {t:DateTime64(3)} AS t",
      query_params: { s: "tab\t' \\ line\nend", a: ["x'y", ""], f: 0.5, n: null, m: { k: 1 }, b: true, t: at },
      format: "JSONEachRow",
    });
    const [row] = await result.json();
    assert.deepEqual(row, { s: "tab\t' \\ line\nend", a: ["x'y", ""], f: 0.5, n: null, m: { k: 1 }, b: true, t: "2026-03-01 12:30:15.123" });
  },

  async "an error has its code and type"() {
    await assert.rejects(reader.query({ query: "SELECT * FROM nowhere" }), { code: "60", type: "UNKNOWN_TABLE" });
    await assert.rejects(reader.command({ query: "DROP TABLE from_js" }), { code: "164" });
    await assert.rejects(packed.query({ query: "SELECT throwIf(1)" }), { code: "395" });
  },

  async "a query that is given up, and one that is killed by its id, are ended"() {
    const given = new AbortController();
    const waiting = reader.query({ query: LONG, query_id: "from-js-given-up", abort_signal: given.signal });
    await until(async () => (await running()).includes("from-js-given-up"));
    given.abort();
    await assert.rejects(waiting);
    await until(async () => !(await running()).includes("from-js-given-up"));
    const killed = assert.rejects(reader.query({ query: LONG, query_id: "from-js-killed" }), { code: "394" });
    await until(async () => (await running()).includes("from-js-killed"));
    await full.command({ query: "KILL QUERY WHERE query_id = 'from-js-killed' SYNC" });
    await killed;
  },
};

async function running() {
  const named = await full.query({ query: "KILL QUERY WHERE 1 TEST", format: "JSONEachRow" });
  return (await named.json()).map((row) => row.query_id);
}

async function until(holds) {
  const deadline = Date.now() + 30000;
  while (!(await holds())) assert.ok(Date.now() < deadline, "it never came");
}

(async () => {
  for (const [name, step] of Object.entries(steps)) {
    await step();
    console.log(name);
  }
  for (const client of [full, reader, packed]) await client.close();
})().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
