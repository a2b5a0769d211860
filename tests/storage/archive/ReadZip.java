import java.io.FileOutputStream;
import java.io.File;
import java.util.zip.ZipEntry;
import java.util.zip.ZipInputStream;

/** Unpacks a zip archive from standard input into the directory of its argument, without seeking. */
public class ReadZip {
    public static void main(String[] arguments) throws Exception {
        ZipInputStream archive = new ZipInputStream(System.in);
        for (ZipEntry entry; (entry = archive.getNextEntry()) != null; ) {
            File file = new File(arguments[0], entry.getName());
            file.getParentFile().mkdirs();
            try (FileOutputStream out = new FileOutputStream(file)) {
                archive.transferTo(out);
            }
        }
    }
}
