// What a program in Java does with a ClickHouse, done with the official client (which the JDBC driver is built on) against
// the address it is given. Started by test_foreign_clients.py; ends with an assertion's words, or prints what it has seen to
// work, line by line.

import com.clickhouse.client.api.Client;
import com.clickhouse.client.api.ServerException;
import com.clickhouse.client.api.data_formats.ClickHouseBinaryFormatReader;
import com.clickhouse.client.api.insert.InsertResponse;
import com.clickhouse.client.api.query.GenericRecord;
import com.clickhouse.client.api.query.QueryResponse;
import com.clickhouse.client.api.query.QuerySettings;
import com.clickhouse.data.ClickHouseFormat;
import java.io.ByteArrayInputStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

public class JavaClient {
    static final String LONG = "SELECT count() FROM numbers(1000000000000)";

    public static class Row {
        private long step;
        private double loss;
        private String name;

        public Row(long step, double loss, String name) {
            this.step = step;
            this.loss = loss;
            this.name = name;
        }

        public long getStep() { return step; }
        public double getLoss() { return loss; }
        public String getName() { return name; }
    }

    static Client open(String user, String token, boolean response, boolean request, boolean byHttp) {
        return new Client.Builder()
            .addEndpoint(System.getenv("URL"))
            .setUsername(user)
            .setPassword(token)
            .setDefaultDatabase("pilothouse")
            .compressServerResponse(response)
            .compressClientRequest(request)
            .useHttpCompression(byHttp)
            .build();
    }

    static void same(Object seen, Object expected) {
        if (!Objects.equals(seen, expected)) throw new AssertionError("seen " + seen + ", expected " + expected);
    }

    static List<String> running(Client client) {
        List<String> ids = new ArrayList<>();
        for (GenericRecord row : client.queryAll("KILL QUERY WHERE 1 TEST")) ids.add(row.getString("query_id"));
        return ids;
    }

    static void until(Client client, String queryId, boolean runs) throws Exception {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(30);
        while (running(client).contains(queryId) != runs) {
            if (System.nanoTime() > deadline) throw new AssertionError(queryId + (runs ? " never ran" : " never ended"));
        }
    }

    static void trip(Client client, String table) throws Exception {
        client.execute("CREATE TABLE " + table + " (step UInt64, loss Float64, name String) ENGINE = MergeTree ORDER BY step").get();
        client.register(Row.class, client.getTableSchema(table));
        List<Row> rows = new ArrayList<>();
        for (int step = 0; step < 5_000; step++) rows.add(new Row(step, step == 0 ? Double.NaN : 1.0 / step, " \n\té漢"));
        try (InsertResponse inserted = client.insert(table, rows).get(60, TimeUnit.SECONDS)) {
            same(inserted.getWrittenRows(), 5_000L);
        }
        byte[] csv = "5000,-inf,\"a,b\"\n".getBytes(StandardCharsets.UTF_8);
        client.insert(table, new ByteArrayInputStream(csv), ClickHouseFormat.CSV).get(60, TimeUnit.SECONDS).close();
        try (QueryResponse answer = client.query("SELECT * FROM " + table + " ORDER BY step").get(60, TimeUnit.SECONDS)) {
            ClickHouseBinaryFormatReader reader = client.newBinaryFormatReader(answer);
            for (int step = 0; step <= 5_000; step++) {
                reader.next();
                same(reader.getLong("step"), (long) step);
                double loss = step == 0 ? Double.NaN : step == 5_000 ? Double.NEGATIVE_INFINITY : 1.0 / step;
                same(reader.getDouble("loss"), loss);
                same(reader.getString("name"), step == 5_000 ? "a,b" : " \n\té漢");
            }
            same(reader.next(), null);
            same(answer.getResultRows(), 5_001L);
        }
    }

    static void refused(Client client, String sql, int code) throws Exception {
        try {
            client.query(sql).get(60, TimeUnit.SECONDS).close();
        } catch (Exception error) {
            Throwable cause = error;
            while (cause != null && !(cause instanceof ServerException)) cause = cause.getCause();
            if (cause == null) throw error;
            same(((ServerException) cause).getCode(), code);
            if (!cause.getMessage().contains("DB::Exception")) throw new AssertionError("no words: " + cause.getMessage());
            return;
        }
        throw new AssertionError(sql + " was not refused");
    }

    public static void main(String[] arguments) throws Exception {
        String fullToken = System.getenv("FULL_TOKEN"), readerToken = System.getenv("READER_TOKEN");
        try (Client full = open("pilothouse", fullToken, true, false, false);
            Client reader = open("reader", readerToken, true, false, false);
            Client bothWays = open("pilothouse", fullToken, true, true, false);
            Client byHttp = open("pilothouse", fullToken, true, true, true);
            Client plain = open("pilothouse", fullToken, false, false, false);
            Client stranger = open("reader", "wrong", true, false, false)) {

            same(full.ping(), true);
            same(reader.ping(), true);
            System.out.println("ping");

            trip(full, "from_java");
            trip(bothWays, "from_java_both_ways");
            trip(byHttp, "from_java_by_http");
            trip(plain, "from_java_plain");
            System.out.println("RowBinary both ways: blocks in answers, in requests, HTTP's own compression, none");

            try (QueryResponse answer = reader.query("SELECT {n:Int64} + 1 AS n, {s:String} AS s", Map.of("n", 7, "s", "é漢"), new QuerySettings()).get()) {
                ClickHouseBinaryFormatReader read = reader.newBinaryFormatReader(answer);
                read.next();
                same(read.getLong("n"), 8L);
                same(read.getString("s"), "é漢");
            }
            System.out.println("parameters");

            refused(reader, "SELECT * FROM nowhere", 60);
            refused(reader, "DROP TABLE from_java", 164);
            refused(byHttp, "SELECT throwIf(1)", 395);
            refused(stranger, "SELECT 1", 516);
            System.out.println("errors have their codes and words");

            QuerySettings settings = new QuerySettings().setQueryId("from-java");
            CompletableFuture<QueryResponse> waiting = CompletableFuture.supplyAsync(() -> {
                try {
                    return reader.query(LONG, settings).get();
                } catch (Exception error) {
                    throw new RuntimeException(error);
                }
            });
            until(reader, "from-java", true);
            reader.execute("KILL QUERY WHERE query_id = 'from-java'").get();
            until(reader, "from-java", false);
            try {
                waiting.get(60, TimeUnit.SECONDS);
                throw new AssertionError("the killed query answered");
            } catch (java.util.concurrent.ExecutionException killed) {
                if (!killed.toString().contains("394")) throw killed;
            }
            System.out.println("a query is killed by its id");
        }
    }
}
