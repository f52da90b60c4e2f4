// What an editor like DBeaver or DataGrip does through JDBC, against the address it is given. Only java.sql is named here:
// whichever driver is on the class path is tried. Started by test_foreign_clients.py; prints what it has seen to work.

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Objects;
import java.util.Properties;

public class Jdbc {
    static final String LONG = "SELECT count() FROM numbers(1000000000000)";

    static Connection open(String user, String token) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", user);
        properties.setProperty("password", token);
        return DriverManager.getConnection("jdbc:clickhouse://127.0.0.1:" + System.getenv("PORT") + "/pilothouse", properties);
    }

    static void same(Object seen, Object expected) {
        if (!Objects.equals(seen, expected)) throw new AssertionError("seen " + seen + ", expected " + expected);
    }

    public static void main(String[] arguments) throws Exception {
        String fullToken = System.getenv("FULL_TOKEN"), readerToken = System.getenv("READER_TOKEN");
        try (Connection full = open("pilothouse", fullToken); Connection reader = open("reader", readerToken)) {
            try (Statement statement = full.createStatement()) {
                statement.executeUpdate("CREATE TABLE from_jdbc (step UInt64, loss Float64, name String) ENGINE = MergeTree ORDER BY step");
            }
            try (PreparedStatement insert = full.prepareStatement("INSERT INTO from_jdbc VALUES (?, ?, ?)")) {
                for (int step = 0; step < 1000; step++) {
                    insert.setLong(1, step);
                    insert.setDouble(2, step / 2.0);
                    insert.setString(3, "tab\t' \\ é漢");
                    insert.addBatch();
                }
                insert.executeBatch();
            }
            System.out.println("a table and a batch of rows");

            try (PreparedStatement select = reader.prepareStatement("SELECT * FROM from_jdbc WHERE step >= ? ORDER BY step")) {
                select.setLong(1, 10);
                try (ResultSet rows = select.executeQuery()) {
                    for (int step = 10; step < 1000; step++) {
                        same(rows.next(), true);
                        same(rows.getLong("step"), (long) step);
                        same(rows.getDouble("loss"), step / 2.0);
                        same(rows.getString("name"), "tab\t' \\ é漢");
                    }
                    same(rows.next(), false);
                }
            }
            System.out.println("a prepared query");

            try (ResultSet tables = reader.getMetaData().getTables(null, "pilothouse", "from_jdbc", null)) {
                same(tables.next(), true);
                same(tables.getString("TABLE_NAME"), "from_jdbc");
            }
            try (ResultSet columns = reader.getMetaData().getColumns(null, "pilothouse", "from_jdbc", null)) {
                same(columns.next(), true);
                same(columns.getString("COLUMN_NAME"), "step");
            }
            try (Statement limited = reader.createStatement()) {
                limited.setMaxRows(0);
                try (ResultSet rows = limited.executeQuery("SELECT number FROM numbers(10)")) {
                    same(rows.next(), true);
                }
            }
            System.out.println("what an editor's tree asks");

            try (Statement statement = reader.createStatement()) {
                statement.executeUpdate("DROP TABLE from_jdbc");
                throw new AssertionError("a reader dropped a table");
            } catch (SQLException refused) {
                same(refused.getMessage().contains("164"), true);
            }
            System.out.println("an error has its words");

            Statement waiting = reader.createStatement();
            Throwable[] ended = new Throwable[1];
            Thread thread = new Thread(() -> {
                try {
                    waiting.executeQuery(LONG);
                } catch (Throwable error) {
                    ended[0] = error;
                }
            });
            thread.start();
            long deadline = System.nanoTime() + 60_000_000_000L;
            while (thread.isAlive()) {
                if (System.nanoTime() > deadline) throw new AssertionError("the query was never cancelled");
                waiting.cancel();
                thread.join(200);
            }
            same(ended[0] instanceof SQLException, true);
            System.out.println("a query is cancelled");
        }
    }
}
