import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.anserini.search.SimpleSearcher;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.apache.lucene.analysis.Analyzer;
import org.apache.lucene.analysis.en.EnglishAnalyzer;
import org.apache.lucene.analysis.standard.StandardTokenizer;
import org.apache.lucene.analysis.tokenattributes.CharTermAttribute;
import org.apache.lucene.document.BinaryDocValuesField;
import org.apache.lucene.document.Document;
import org.apache.lucene.document.Field;
import org.apache.lucene.document.StringField;
import org.apache.lucene.document.TextField;
import org.apache.lucene.index.IndexWriter;
import org.apache.lucene.index.IndexWriterConfig;
import org.apache.lucene.search.similarities.BM25Similarity;
import org.apache.lucene.store.FSDirectory;
import org.apache.lucene.util.BytesRef;

/**
 * Lucene's own answers, to compare with. Needs Anserini's jar (it lies in the pyserini wheel, under
 * pyserini/resources/jars):
 *
 * <pre>
 * java -cp anserini-0.22.1-fatjar.jar tools/LuceneSearch.java CORPUS QUERIES 10 FOLDER
 * java -cp anserini-0.22.1-fatjar.jar tools/LuceneSearch.java words|terms
 * </pre>
 *
 * Reads and writes what `cargo run --example search_corpus` does; FOLDER takes Lucene's index.
 */
public class LuceneSearch {
  private static final ObjectMapper JSON = new ObjectMapper();

  public static void main(String[] arguments) throws Exception {
    try (PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8)) {
      if (arguments.length == 1) {
        terms(arguments[0].equals("words"), out);
      } else {
        search(arguments, out);
      }
    }
    System.exit(0);
  }

  private static void terms(boolean whole, PrintStream out) throws Exception {
    Analyzer words =
        new Analyzer() {
          @Override
          protected TokenStreamComponents createComponents(String field) {
            return new TokenStreamComponents(new StandardTokenizer());
          }
        };
    Analyzer analyzer = whole ? words : new EnglishAnalyzer();
    var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      List<String> found = new ArrayList<>();
      try (var stream = analyzer.tokenStream("contents", JSON.readValue(line, String.class))) {
        var term = stream.addAttribute(CharTermAttribute.class);
        stream.reset();
        while (stream.incrementToken()) {
          found.add(term.toString());
        }
        stream.end();
      }
      out.println(JSON.writeValueAsString(found));
    }
  }

  private static void search(String[] arguments, PrintStream out) throws Exception {
    var config = new IndexWriterConfig(new EnglishAnalyzer());
    config.setSimilarity(new BM25Similarity(0.9f, 0.4f));
    config.setOpenMode(IndexWriterConfig.OpenMode.CREATE);
    try (var writer = new IndexWriter(FSDirectory.open(Path.of(arguments[3])), config)) {
      for (String line : Files.readAllLines(Path.of(arguments[0]))) {
        JsonNode passage = JSON.readTree(line);
        String id = passage.get("id").asText();
        var document = new Document();
        document.add(new StringField("id", id, Field.Store.YES));
        document.add(new BinaryDocValuesField("id", new BytesRef(id)));
        document.add(new TextField("contents", passage.get("contents").asText(), Field.Store.NO));
        writer.addDocument(document);
      }
      writer.forceMerge(1);
    }
    var searcher = new SimpleSearcher(arguments[3]);
    searcher.set_bm25(0.9f, 0.4f);
    for (String line : Files.readAllLines(Path.of(arguments[1]))) {
      List<List<Object>> found = new ArrayList<>();
      for (var hit : searcher.search(JSON.readValue(line, String.class), Integer.parseInt(arguments[2]))) {
        found.add(List.of(hit.docid, hit.score));
      }
      out.println(JSON.writeValueAsString(found));
    }
  }
}
