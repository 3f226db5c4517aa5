import ij.ImagePlus;
import ij.ImageStack;
import ij.io.FileSaver;
import ij.measure.Calibration;
import ij.process.ByteProcessor;
import ij.process.FloatProcessor;
import ij.process.ImageProcessor;
import ij.process.ShortProcessor;

/** Saves what the test expects: value (x + 7 y + 31 z) times a factor, of every type and form. */
public class SaveTiffs {
    static ImagePlus image(String type, int count) {
        ImageStack stack = new ImageStack(9, 6);
        for (int z = 0; z < count; z++) {
            ImageProcessor section = type.equals("8") ? new ByteProcessor(9, 6)
                : type.equals("16") ? new ShortProcessor(9, 6) : new FloatProcessor(9, 6);
            for (int y = 0; y < 6; y++)
                for (int x = 0; x < 9; x++) {
                    int value = x + 7 * y + 31 * z;
                    if (type.equals("8")) section.set(x, y, value);
                    else section.setf(x, y, type.equals("16") ? value * 200f : value / 4f);
                }
            stack.addSlice("", section);
        }
        ImagePlus image = new ImagePlus("image", stack);
        Calibration voxel = image.getCalibration();
        voxel.setUnit("nm");
        voxel.pixelWidth = voxel.pixelHeight = 4;
        voxel.pixelDepth = 50;
        return image;
    }

    static void save(ImagePlus image, String path) {
        FileSaver saver = new FileSaver(image);
        if (!(image.getStackSize() > 1 ? saver.saveAsTiffStack(path) : saver.saveAsTiff(path)))
            throw new RuntimeException(path);
    }

    public static void main(String[] arguments) {
        String folder = arguments[0] + "/";
        for (String type : new String[] {"8", "16", "32"})
            for (int count : new int[] {1, 4})
                save(image(type, count), folder + type + "bit-" + count + ".tif");
        for (int count : new int[] {1, 4}) {
            ImagePlus inverted = image("8", count);
            inverted.getProcessor().invertLut();
            inverted.setProcessor(inverted.getProcessor());
            if (count > 1) inverted.getStack().setColorModel(inverted.getProcessor().getColorModel());
            save(inverted, folder + "inverted-" + count + ".tif");
        }
        for (String axis : new String[] {"channels", "slices", "frames"}) {
            ImagePlus hyperstack = image("8", 4);
            hyperstack.setDimensions(axis.equals("channels") ? 4 : 1, axis.equals("slices") ? 4 : 1,
                axis.equals("frames") ? 4 : 1);
            hyperstack.setOpenAsHyperStack(true);
            save(hyperstack, folder + axis + ".tif");
        }
    }
}
